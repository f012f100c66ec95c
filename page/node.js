// The last hours of one node: each metric with what was expected, and its errors with the threshold.

import { Chart, logRange, rangeOf } from "./chart.js";
import { Asked, legend } from "./detail.js";
import { over, Threshold } from "./threshold.js";
import { clock, count, figure, make, mark, scaleOf, withUnit } from "./words.js";

const HOUR = 3600000;
const SPANS = [1, 3, 12, 24];
// So many records must be missing before the newest one is old.
const LATE_RECORDS = 4;
const STATUSES = ["normal", "anomaly", "alert", "unknown"];
const LEVELS = ["actual", "low", "expected", "high"];

class Metric {
  constructor(name, isOverall) {
    this.name = name;
    this.title = make("h3", {}, name);
    this.errors = new Chart(96);
    this.threshold = new Threshold(name, this.errors, () => this.#drawErrors());
    const asked = (chart, label, describe) => new Asked(chart, label, describe);
    this.errorsAsked = asked(this.errors, `RMSE of ${name}`, (place) => this.#error(place));
    this.errorsAsked.frame.append(this.threshold.handle);
    const parts = [];
    if (!isOverall) {
      this.level = new Chart(132);
      this.levelAsked = asked(this.level, `level of ${name}`, (place) => this.#levelAt(place));
      parts.push(this.levelAsked.frame, this.levelAsked.answer);
    }
    this.section = make("section", { class: "metric", "aria-label": name }, this.title, ...parts,
      this.errorsAsked.frame, this.errorsAsked.answer, this.threshold.said, this.threshold.tools);
  }

  show(node, data, from, to, step) {
    Object.assign(this, { node, data, from, to, step });
    this.#places();
    if (this.level) this.#drawLevel();
    this.#drawErrors();
    this.threshold.show(data.key, data.threshold, data.evidence, node.thresholds_file);
    const newest = data.rmse.at(-1) ?? null;
    this.errorsAsked.rest(`RMSE over 30 records, ${this.#when()} ${figure(newest)}`);
    this.section.classList.toggle("stale", this.#isStale());
  }

  // Whether the newest record is too old to be called that of now.
  #isStale() {
    const newest = this.node.times.at(-1);
    return newest !== undefined && (this.node.status === "silent" || this.to - newest > LATE_RECORDS * this.step);
  }

  #when() {
    return this.#isStale() ? `at ${clock(this.node.times.at(-1))}` : "now";
  }

  // Which records are anomalies because of this metric; of `overall`, those of no single metric.
  #places() {
    const { statuses, quiet, causeless } = this.node;
    this.marks = { quiet: [], anomaly: [], alert: [] };
    this.unknown = [];
    for (let place = 0; place < statuses.length; place++) {
      const status = STATUSES[statuses[place]];
      const digit = Number(this.data.marks?.[place] ?? 0);
      const isIt = this.data.marks ? digit & 1 : causeless[place];
      if (isIt && (status === "anomaly" || status === "alert")) {
        this.marks[quiet[place] === "1" ? "quiet" : status].push(place);
      }
      if (digit & 2 || (!this.data.marks && status === "unknown")) this.unknown.push(place);
    }
  }

  #drawLevel() {
    const { actual, low, expected, high, unit } = this.data;
    const range = rangeOf([actual, expected], [...low, ...high]);
    const [divisor, name] = scaleOf(unit, Math.max(...range.map(Math.abs)));
    this.level.show({ times: this.node.times, from: this.from, to: this.to, step: this.step, lines: { actual, expected },
      low, high, marks: this.marks, unknown: this.unknown, range, divisor });
    const last = this.node.times.length - 1;
    const now = last < 0 ? "no record" : withUnit(actual[last], unit);
    const { anomaly, alert, quiet } = this.marks;
    const anomalies = anomaly.length + alert.length + quiet.length;
    const found = anomalies ? `${count(anomalies, "anomaly").replace("anomalys", "anomalies")}, ${alert.length} of them alert${alert.length === 1 ? "" : "s"}` : "no anomaly";
    this.title.replaceChildren(this.name, make("span", { class: "value" }, now), ...(this.#isStale() ? [make("span", { class: "as-of" }, this.#when())] : []), make("span", { class: "found" }, anomalies ? mark(alert.length ? "alert" : "anomaly") : "", found), make("span", { class: "unit" }, `[${name}]`));
    this.level.canvas.setAttribute("aria-label", `${this.name}: ${this.#when()} ${now}, ${found} in the time shown`);
    this.levelAsked.rest(last < 0 ? "" : `${this.#when()} ${this.#allowed(last)}`);
  }

  #drawErrors() {
    const { rmse, evidence, threshold } = this.data;
    const shown = this.threshold.value ?? threshold;
    this.errors.show({ times: this.node.times, from: this.from, to: this.to, step: this.step, lines: { actual: rmse },
      line: shown, ticks: over(evidence, shown), unknown: this.unknown, range: logRange(rmse, threshold), isLog: true, divisor: 1 });
    this.errors.canvas.setAttribute("aria-label", `RMSE of ${this.name} over the last 30 records, with the threshold`);
  }

  #allowed(place) {
    const { actual, low, expected, high, unit } = this.data;
    const of = (values) => withUnit(values[place], unit);
    return `${of(actual)}, expected ${of(expected)}, allowed ${of(low)} to ${of(high)}`;
  }

  #levelAt(place) {
    const status = Object.keys(this.marks).find((one) => this.marks[one].includes(place));
    const time = this.node.times[place];
    const reason = this.node.reasons.find(([first, last]) => first <= time && time <= last)?.[2];
    const words = { quiet: reason ? `, an anomaly, quiet by ${reason}` : ", a quiet anomaly", anomaly: ", an anomaly", alert: ", an alert" };
    return `${clock(this.node.times[place])}: ${this.#allowed(place)}${words[status] ?? ""}`;
  }

  #error(place) {
    const isOver = (this.data.evidence[place] ?? 0) > this.threshold.shown;
    return `${clock(this.node.times[place])}: RMSE ${figure(this.data.rmse[place])}${isOver ? ", an anomaly" : ""}`;
  }
}

// The details of one node in `host`.
export class NodeDetail {
  constructor(host, name, every) {
    Object.assign(this, { host, name, step: every * 1000, hours: 1, data: null, metrics: new Map() });
    this.heading = make("h2", {}, name || "The last hours");
    this.status = make("span", { class: "chip" });
    this.incident = make("p", { class: "of-incident", hidden: true });
    this.body = make("div", { class: "metrics" });
    const spans = make("fieldset", { class: "spans" }, make("legend", { class: "unseen" }, "Time shown"), ...SPANS.map((hours) => {
      const input = make("input", { type: "radio", name: "span", value: hours, checked: hours === this.hours });
      input.addEventListener("change", () => this.span(hours));
      return make("label", {}, input, make("span", {}, `${hours} h`));
    }));
    const back = name ? [make("a", { class: "back", href: "#", title: "Back to all nodes (Esc)" }, "← All")] : [];
    const help = make("details", { class: "help" }, make("summary", {}, "How to read this"),
      make("p", {}, "A record is an anomaly of a metric if two things are over the threshold: the RMSE over the last 30 records, and a quarter of the record's own error. A change that lasts is one, too. Ticks below an RMSE mark the records that are anomalies with the threshold shown, counted by exactly this rule."),
      make("p", {}, "Drag the threshold, or use the arrow keys on it, to try another one. This page changes nothing: copy the line into the thresholds file, and it takes effect at the next poll. Counts are of the time shown, whatever the threshold was then. The 4th anomaly in a row is an alert."),
      make("p", {}, "A hollow triangle is a quiet anomaly: an answer or a calendar says that it is normal, so it counts for no alert. Point at it to see which. Green is what is allowed. It is cut at the top if it reaches farther than ten times the levels, and at the bottom if it is far below them."));
    host.replaceChildren(make("div", { class: "bar" }, ...back, this.heading, this.status, spans), this.incident,
      legend(["actual", "actual"], ["expected", "expected"], ["band", "allowed"], ["anomaly", "anomaly"], ["alert", "alert"], ["quiet", "quiet"], ["unknown", "unknown"]), help, this.body);
  }

  async span(hours) {
    this.hours = hours;
    this.data = null;
    await this.refresh();
  }

  about(entry) {
    this.incident.hidden = !entry;
    if (entry) this.incident.replaceChildren(mark(entry.ended ? "normal" : "alert"), entry.why || entry.cause, make("code", {}, entry.id));
  }

  // Ask for what is new, and draw it. Raises what fetch raises.
  async refresh() {
    const hours = this.hours;
    const since = this.data?.newest ?? `${Date.now() - hours * HOUR}000000`;
    const answer = await fetch(`node?name=${encodeURIComponent(this.name)}&since=${since}`, { cache: "no-cache" });
    if (!answer.ok) throw new Error(await answer.text());
    const content = await answer.json();
    if (hours !== this.hours) return;
    if (!this.data || content.since === this.data.newest) this.#take(content);
    this.#draw();
  }

  #take(content) {
    const cut = Date.now() - this.hours * HOUR;
    const before = this.data && Object.keys(this.data.metrics).join() === Object.keys(content.metrics).join() ? this.data : null;
    const first = before ? before.times.findIndex((time) => time >= cut) : -1;
    const join = (older, newer) => first < 0 ? newer : typeof newer === "string" ? older.slice(first) + newer : [...older.slice(first), ...newer];
    for (const [name, metric] of Object.entries(content.metrics)) {
      for (const part of [...LEVELS, "rmse", "evidence", "marks"]) {
        if (part in metric) metric[part] = join(before?.metrics[name][part], metric[part]);
      }
    }
    for (const part of ["times", "statuses", "quiet"]) content[part] = join(before?.[part], content[part]);
    const single = Object.values(content.metrics).filter((metric) => metric.marks !== undefined);
    content.causeless = content.times.map((_, place) => single.every((metric) => !(Number(metric.marks[place]) & 1)));
    this.data = content;
  }

  #draw() {
    const { data } = this;
    this.status.replaceChildren(mark(data.status), data.status);
    const to = Math.max(Date.now(), data.times.at(-1) ?? 0);
    const names = Object.keys(data.metrics);
    if (names.join() !== [...this.metrics.keys()].join()) {
      this.metrics = new Map(names.map((name) => [name, new Metric(name, data.metrics[name].actual === undefined)]));
      this.body.replaceChildren(...[...this.metrics.values()].map((one) => one.section));
    }
    for (const [name, one] of this.metrics) one.show(data, data.metrics[name], to - this.hours * HOUR, to, this.step);
  }
}
