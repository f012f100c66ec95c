"""Makes the dashboards, with Grafana's foundation SDK: python deploy/grafana/make_dashboards.py

The files below `provisioning` are what comes out of this, which a test holds: dashboards are changed here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parent / "provisioning/dashboards/find_anomalies"
# The uids are those of datasources.yml.
INFLUXDB = dashboard.DataSourceRef("influxdb", "find-anomalies-influxdb")
PROMETHEUS = dashboard.DataSourceRef("prometheus", "find-anomalies-prometheus")
# Okabe and Ito's colours, which most people can tell apart; lines, dots and fills differ in shape as well.
BLACK, BLUE, GREEN, YELLOW, RED = "text", "#0072B2", "#009E73", "#E69F00", "#D55E00"
WIDE, HALF, QUARTER = 24, 12, 6


# --- queries -------------------------------------------------------------------------------------


class InfluxQuery(Dataquery):
    """A query in InfluxQL, for which the SDK has no class."""

    def __init__(self, ref_id: str, query: str, alias: str = "", is_table: bool = False) -> None:
        self.ref_id, self.query, self.alias, self.is_table = ref_id, query, alias, is_table

    def to_json(self) -> dict[str, object]:
        """As Grafana keeps it."""
        return {
            "refId": self.ref_id,
            "datasource": INFLUXDB,
            "query": self.query,
            "rawQuery": True,
            "resultFormat": "table" if self.is_table else "time_series",
            **({"alias": self.alias} if self.alias else {}),
        }


class Built(Builder[Any]):
    """What is built already, where the SDK wants a builder."""

    def __init__(self, content: Any) -> None:
        self._content = content

    def build(self) -> Any:
        """The content."""
        return self._content


class InfluxAnnotation(dashboard.AnnotationQuery):
    """An annotation by a query in InfluxQL, for which the SDK has no class."""

    def __init__(self, name: str, query: str, text_column: str, color: str) -> None:
        super().__init__(name=name, datasource=INFLUXDB, enable=True, hide=False, icon_color=color)
        self._influx = {"query": query, "textColumn": text_column}

    def to_json(self) -> dict[str, object]:
        """As Grafana keeps it."""
        return super().to_json() | self._influx


def influx(ref_id: str, query: str, alias: str = "", is_table: bool = False) -> Built:
    """A query of a panel."""
    return Built(InfluxQuery(ref_id, query, alias, is_table))


def drawn(field: str, where: str, function: str = "mean") -> str:
    """The InfluxQL of a field of `expected` over time. A step without a record stays empty."""
    return (
        f'SELECT {function}("{field}") FROM "expected" WHERE {where} AND $timeFilter'
        " GROUP BY time($__interval) fill(null)"
    )


def prom(ref_id: str, expression: str, legend: str = "") -> prometheus.Dataquery:
    """A query of a panel, over time."""
    return prometheus.Dataquery().ref_id(ref_id).expr(expression).legend_format(legend).range()


def prom_table(expression: str) -> prometheus.Dataquery:
    """A query of a table, of now."""
    return prometheus.Dataquery().ref_id("A").expr(expression).instant().format(PromQueryFormat.TABLE)


# --- panels --------------------------------------------------------------------------------------


def override(**properties: Any) -> list[dashboard.DynamicConfigValue]:
    """How one series looks; `color`, or settings of a time series such as lineWidth."""
    found = []
    for key, value in properties.items():
        if key == "color":
            found.append(dashboard.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": value}))
        elif key in ("unit", "displayName"):
            found.append(dashboard.DynamicConfigValue(key, value))
        else:
            found.append(dashboard.DynamicConfigValue(f"custom.{key}", value))
    return found


def lines(title: str, datasource: dashboard.DataSourceRef, span: int, text: str) -> timeseries.Panel:
    """A panel of lines over time, with gaps where nothing is known."""
    return (
        timeseries.Panel()
        .title(title)
        .description(text)
        .datasource(datasource)
        .height(8)
        .span(span)
        .line_width(1)
        .fill_opacity(0)
        .show_points(common.VisibilityMode.NEVER)
        .span_nulls(False)
        .interval("15s")
    )


def with_band(panel: timeseries.Panel) -> timeseries.Panel:
    """Draw `low` to `high` as a band, `expected` dashed, and the points of anomalies and alerts as dots."""
    dots = {"drawStyle": "points", "showPoints": "always"}
    return (
        panel.override_by_name("actual", override(color=BLACK, lineWidth=2))
        .override_by_name("expected", override(color=BLUE, lineStyle={"fill": "dash", "dash": [6, 4]}))
        .override_by_name("high", override(color=GREEN, lineWidth=0, fillBelowTo="low", fillOpacity=20))
        .override_by_name("low", override(color=GREEN, lineWidth=0))
        .override_by_name("anomaly", override(color=YELLOW, pointSize=7, **dots))
        .override_by_name("alert", override(color=RED, pointSize=11, **dots))
    )


def rows(title: str, datasource: dashboard.DataSourceRef, query: Builder[Any], text: str) -> table.Panel:
    """A panel with a table."""
    panel = table.Panel().title(title).description(text).datasource(datasource).height(8).span(WIDE)
    return panel.with_target(query)


def figure(title: str, expression: str, text: str, unit: str = "short") -> stat.Panel:
    """A panel with one number, of Prometheus."""
    return (
        stat.Panel()
        .title(title)
        .description(text)
        .datasource(PROMETHEUS)
        .unit(unit)
        .height(4)
        .span(QUARTER)
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.NONE)
        .with_target(prom("A", expression))
    )


def chosen(
    name: str,
    label: str,
    query: str | dict[str, object],
    datasource: dashboard.DataSourceRef,
    is_all: bool = False,
) -> builders.QueryVariable:
    """A variable that the dashboard shows at its top; with is_all, all values are chosen at first."""
    variable = (
        builders.QueryVariable(name)
        .label(label)
        .datasource(datasource)
        .query(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )
    if is_all:
        everything = dashboard.VariableOption(text="All", value="$__all", selected=True)
        variable.multi(True).include_all(True).current(everything)
    return variable


def started(title: str, uid: str, text: str, hours: int) -> builders.Dashboard:
    """A dashboard without panels."""
    return (
        builders.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["find_anomalies"])
        .editable()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .time(f"now-{hours}h", "now")
        .timezone("browser")
        .refresh("30s")
    )


# --- dashboards ----------------------------------------------------------------------------------


def edge_influxdb() -> dashboard.Dashboard:
    """The edge in InfluxDB: each metric with what was expected, and the incidents."""
    # A node that is the only one has no such tag, and no value here: then this finds what has none.
    of_node = "\"node\"::tag = '$node'"
    of_metric = f"{of_node} AND \"metric\"::tag = '$metric'"
    found = (
        started(
            "Edge nodes (InfluxDB)",
            "find-anomalies-edge",
            "What was measured, expected and allowed. It needs --store_expected.",
            6,
        )
        .with_variable(chosen("node", "Node", 'SHOW TAG VALUES FROM "expected" WITH KEY = "node"', INFLUXDB))
        .with_variable(
            chosen(
                "metric",
                "Metric",
                # Metrics of ports have no `rmse`, and `overall` has no level.
                'SHOW TAG VALUES FROM "expected" WITH KEY = "metric" WHERE "metric" !~ /^(overall|traffic)$/',
                INFLUXDB,
                is_all=True,
            )
        )
        .annotation(
            Built(
                InfluxAnnotation(
                    "Incidents",
                    f'SELECT "why" FROM "edge_incidents" WHERE {of_node} AND $timeFilter',
                    "why",
                    RED,
                )
            )
        )
    )
    panel = lines(
        "$metric",
        INFLUXDB,
        HALF,
        "Black: measured, in the unit of the metric. Dashed: expected. Band: allowed. Small dots: anomalies."
        " Large dots: alerts.",
    ).unit("sishort")
    for ref_id, field in zip("ABCD", ("actual", "expected", "high", "low"), strict=True):
        panel.with_target(influx(ref_id, drawn(field, of_metric), field))
    panel.with_target(influx("E", drawn("actual", f'{of_metric} AND "anomaly" = 1'), "anomaly"))
    panel.with_target(influx("F", drawn("actual", f'{of_metric} AND "anomaly" = 2'), "alert"))
    found.with_row(builders.Row("$metric").repeat("metric"))
    found.with_panel(with_band(panel))
    limits = lines(
        "$metric: error",
        INFLUXDB,
        HALF,
        "RMSE of the newest 30 records, and the threshold above which a record may be an anomaly.",
    )
    limits.with_target(influx("A", drawn("rmse", of_metric), "RMSE"))
    limits.with_target(influx("B", drawn("threshold", of_metric), "threshold"))
    found.with_panel(with_error(limits))
    found.with_row(builders.Row("All metrics"))
    overall = lines(
        "All metrics together: error", INFLUXDB, WIDE, "RMSE of all metrics, and their threshold."
    )
    of_all = f"{of_node} AND \"metric\"::tag = 'overall'"
    overall.with_target(influx("A", drawn("rmse", of_all), "RMSE"))
    overall.with_target(influx("B", drawn("threshold", of_all), "threshold"))
    found.with_panel(with_error(overall))
    incidents = (
        'SELECT "state", "cause", "why", "began", "last", "id", "node"::tag FROM "edge_incidents"'
        " WHERE $timeFilter ORDER BY time DESC LIMIT 100"
    )
    found.with_panel(
        rows("Incidents of all nodes", INFLUXDB, influx("A", incidents, is_table=True), "The newest 100.")
    )
    anomalies = (
        f'SELECT *::field, "possible_cause"::tag, "severity"::tag FROM "detected_anomalies" WHERE {of_node}'
        " AND $timeFilter ORDER BY time DESC LIMIT 100"
    )
    found.with_panel(
        rows(
            "Anomalies",
            INFLUXDB,
            influx("A", anomalies, is_table=True),
            "The newest 100, with what was measured.",
        )
    )
    return found.build()


def with_error(panel: timeseries.Panel) -> timeseries.Panel:
    """Draw an RMSE and its threshold, which begins at zero."""
    return (
        panel.min(0)
        .override_by_name("RMSE", override(color=BLACK))
        .override_by_name("threshold", override(color=RED, lineStyle={"fill": "dash", "dash": [6, 4]}))
    )


def ports_influxdb() -> dashboard.Dashboard:
    """Ports in InfluxDB: traffic with what was expected, and the incidents."""
    of_port = (
        "\"metric\"::tag = 'traffic' AND \"device\"::tag = '$device' AND \"port\"::tag = '$port'"
        " AND \"direction\"::tag = '$direction' AND \"detector\"::tag = '$detector'"
    )
    tag_values = 'SHOW TAG VALUES FROM "expected" WITH KEY = '
    of_device = "WHERE \"metric\" = 'traffic' AND \"device\" = '$device'"
    found = (
        started(
            "Ports (InfluxDB)",
            "find-anomalies-ports",
            "Traffic as measured, expected and allowed. It needs --store_expected.",
            7 * 24,
        )
        .with_variable(chosen("device", "Device", f'{tag_values}"device"', INFLUXDB))
        .with_variable(chosen("port", "Port", f'{tag_values}"port" {of_device}', INFLUXDB))
        .with_variable(
            chosen("direction", "Direction", f'{tag_values}"direction" {of_device}', INFLUXDB, is_all=True)
        )
        .with_variable(chosen("detector", "Detector", f'{tag_values}"detector" {of_device}', INFLUXDB))
        .annotation(
            Built(
                InfluxAnnotation(
                    "Incidents",
                    'SELECT "since" FROM "port_incidents" WHERE "device"::tag = \'$device\' AND $timeFilter',
                    "since",
                    RED,
                )
            )
        )
    )
    panel = lines(
        "$device:$port $direction",
        INFLUXDB,
        WIDE,
        "Black: measured, in bytes per sample. Dashed: expected. Band: allowed. Small dots: anomalies. Large"
        " dots: alerts.",
    ).unit("decbytes")
    for ref_id, field in zip("ABCD", ("actual", "expected", "high", "low"), strict=True):
        panel.with_target(influx(ref_id, drawn(field, of_port), field))
    panel.with_target(influx("E", drawn("actual", f'{of_port} AND "anomaly" = 1', "max"), "anomaly"))
    panel.with_target(influx("F", drawn("actual", f'{of_port} AND "anomaly" = 2', "max"), "alert"))
    found.with_row(builders.Row("$device:$port $direction").repeat("direction"))
    found.with_panel(with_band(panel).interval("5m"))
    score = lines("$device:$port $direction: score", INFLUXDB, WIDE, "Above 1, a bucket is an anomaly.")
    score.with_target(influx("A", drawn("score", of_port, "max"), "score"))
    found.with_panel(score.min(0).interval("5m"))
    found.with_row(builders.Row("Incidents and anomalies"))
    incidents = (
        'SELECT "state", "since", "until", "minutes", "ports", "traffic", "expected", "end", "scope"::tag,'
        ' "device"::tag, "port"::tag, "direction"::tag, "detector"::tag FROM "port_incidents"'
        " WHERE $timeFilter ORDER BY time DESC LIMIT 100"
    )
    found.with_panel(
        rows("Incidents of all ports", INFLUXDB, influx("A", incidents, is_table=True), "The newest 100.")
    )
    anomalies = (
        'SELECT "traffic", "expected", "low", "high", "score", "severity"::tag, "detector"::tag,'
        ' "direction"::tag FROM "detected_port_anomalies" WHERE "device"::tag = \'$device\''
        " AND \"port\"::tag = '$port' AND $timeFilter ORDER BY time DESC LIMIT 100"
    )
    found.with_panel(
        rows("Anomalies of the port", INFLUXDB, influx("A", anomalies, is_table=True), "The newest 100.")
    )
    return found.build()


def service_prometheus() -> dashboard.Dashboard:
    """The service in Prometheus: what is open, and how it does; levels of nodes with series of their own."""
    services = {"query": "label_values(find_anomalies_polls_total, instance)", "refId": "service"}
    of_service = 'instance="$service"'
    nodes = {"query": f"label_values(find_anomalies_level{{{of_service}}}, node)", "refId": "node"}
    metrics = {"query": f"label_values(find_anomalies_level{{{of_service}}}, metric)", "refId": "metric"}

    def of(name: str, more: str = "") -> str:
        return f"find_anomalies_{name}{{{of_service}{more}}}"

    found = (
        started(
            "find_anomalies (Prometheus)",
            "find-anomalies-service",
            "The service's own metrics. It needs --metrics_port, and --metrics_node for each of many nodes.",
            6,
        )
        .with_variable(chosen("service", "Service", services, PROMETHEUS))
        # Without a label `node`, the value is empty, and an empty value finds what has no such label.
        .with_variable(chosen("node", "Node", nodes, PROMETHEUS))
        .with_variable(chosen("metric", "Metric", metrics, PROMETHEUS, is_all=True))
    )
    for panel in (
        figure("Open incidents", of("incident_open"), "Of one node each."),
        figure("Newest record", of("seconds_since_newest_record"), "How old the newest record is.", "s"),
        figure("Last good poll", of("seconds_since_last_good_poll"), "How long ago it was.", "s"),
        figure("Anomalies that wait", of("spool_depth"), "Points that InfluxDB does not have yet."),
    ):
        found.with_panel(panel)
    found.with_panel(open_incidents())
    panel = lines("Nodes by status", PROMETHEUS, WIDE, "Of the newest record of each; only of many nodes.")
    found.with_panel(panel.with_target(prom("A", of("nodes"), "{{status}}")))
    of_metric = ', node="$node", metric="$metric"'
    words = "Black: measured, in the unit of the metric. Dashed: expected. Band: allowed."
    panel = lines("$metric", PROMETHEUS, HALF, words).unit("sishort")
    for ref_id, name, metric in (
        ("A", "actual", "level"),
        ("B", "expected", "expected"),
        ("C", "high", "expected_high"),
        ("D", "low", "expected_low"),
    ):
        panel.with_target(prom(ref_id, of(metric, of_metric), name))
    found.with_row(builders.Row("$metric").repeat("metric"))
    found.with_panel(with_band(panel))
    panel = lines("$metric: error", PROMETHEUS, HALF, "RMSE of the newest 30 records, and its threshold.")
    panel.with_target(prom("A", of("rmse", of_metric), "RMSE"))
    panel.with_target(prom("B", of("threshold", of_metric), "threshold"))
    found.with_panel(with_error(panel))
    found.with_row(builders.Row("Service"))
    panel = lines("Anomalies and alerts by cause", PROMETHEUS, HALF, "Records in five minutes.")
    panel.with_target(prom("A", f"increase({of('anomalies_total')}[5m])", "{{cause}}: anomalies"))
    panel.with_target(prom("B", f"increase({of('alerts_total')}[5m])", "{{cause}}: alerts"))
    found.with_panel(panel)
    panel = lines(
        "Polls", PROMETHEUS, HALF, "Polls in five minutes: all, those that failed, and skipped ones."
    )
    panel.with_target(prom("A", f"increase({of('polls_total')}[5m])", "all"))
    failed = f"sum(increase({of('poll_failures_total')}[5m])) or vector(0)"
    panel.with_target(prom("B", failed, "failed"))
    panel.with_target(prom("C", f"increase({of('skipped_polls_total')}[5m])", "skipped"))
    found.with_panel(panel)
    panel = lines(
        "What waits for InfluxDB", PROMETHEUS, WIDE, "Points of anomalies, and files of `expected`."
    )
    panel.with_target(prom("A", of("spool_depth"), "anomalies"))
    panel.with_target(prom("B", of("spool_refused"), "refused anomalies"))
    panel.with_target(prom("C", of("expected_waiting"), "files of `expected`"))
    found.with_panel(panel)
    return found.build()


def open_incidents() -> table.Panel:
    """The open incidents of all services, what a person needs first on the left."""
    columns = ("since", "node", "cause", "why", "incident", "instance")
    arrangement = {
        "excludeByName": dict.fromkeys(("Time", "Value", "__name__", "job"), True),
        "indexByName": {name: place for place, name in enumerate(columns)},
    }
    expression = "find_anomalies_open_incident or find_anomalies_ports_open_incident"
    words = "Of all services: at most 20 of each."
    panel = rows("Open incidents", PROMETHEUS, prom_table(expression), words)
    return panel.with_transformation(dashboard.DataTransformerConfig("organize", arrangement))


DASHBOARDS = {
    "edge_influxdb.json": edge_influxdb,
    "ports_influxdb.json": ports_influxdb,
    "service_prometheus.json": service_prometheus,
}


def made() -> dict[str, str]:
    """File -> its content."""
    found = {}
    for name, make in DASHBOARDS.items():
        content = make()
        # The SDK leaves them to Grafana, which would choose others each time.
        for number, panel in enumerate(content.panels, 1):
            panel.id_val = number
        found[name] = json.dumps(content, indent=1, cls=JSONEncoder, sort_keys=True) + "\n"
    return found


if __name__ == "__main__":
    for name, content in made().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
