// The last week of one port in one direction: its traffic, and what was expected.

import { Chart, rangeOf } from "./chart.js";
import { Asked, legend } from "./detail.js";
import { clock, count, day, make, mark, scaleOf, withUnit } from "./words.js";

const STATUSES = ["normal", "anomaly", "alert", "unknown"];

// The details of one series in `host`.
export class PortDetail {
  constructor(host, name) {
    Object.assign(this, { host, name });
    this.chart = new Chart(300);
    this.asked = new Asked(this.chart, `traffic of ${name}`, (place) => this.#at(place));
    this.status = make("span", { class: "chip" });
    this.incident = make("p", { class: "of-incident", hidden: true });
    this.title = make("h3", {}, "traffic");
    this.found = make("p", { class: "said" });
    host.replaceChildren(make("div", { class: "bar" }, make("a", { class: "back", href: "#", title: "Back to all ports (Esc)" }, "← All"), make("h2", {}, name), this.status), this.incident,
      legend(["actual", "traffic"], ["expected", "expected"], ["band", "allowed"], ["anomaly", "anomaly"], ["alert", "alert"], ["unknown", "unknown"]),
      make("section", { class: "metric", "aria-label": "traffic" }, this.title, this.asked.frame, this.asked.answer, this.found));
  }

  about(entry) {
    this.incident.hidden = !entry;
    if (entry) this.incident.replaceChildren(mark(entry.ended ? "normal" : "alert"), entry.why || entry.cause, make("code", {}, entry.id));
  }

  async refresh() {
    const answer = await fetch(`port?name=${encodeURIComponent(this.name)}`, { cache: "no-cache" });
    if (!answer.ok) throw new Error(await answer.text());
    this.data = await answer.json();
    const { times, traffic, expected, low, high, statuses, step } = this.data;
    const marks = { anomaly: [], alert: [] };
    const unknown = [];
    times.forEach((_, place) => {
      const status = STATUSES[statuses[place]];
      if (status in marks) marks[status].push(place);
      if (status === "unknown") unknown.push(place);
    });
    const range = rangeOf([traffic, expected], [...low, ...high]);
    const [divisor, unit] = scaleOf("bit/s", Math.max(...range.map(Math.abs)));
    this.title.replaceChildren("traffic", make("span", { class: "unit" }, `[${unit}]`));
    this.chart.show({ times, from: (times[0] ?? 0) - step, to: (times.at(-1) ?? 1) + step, step, lines: { actual: traffic, expected }, low, high, marks, unknown, range, divisor });
    this.status.replaceChildren(mark(this.data.status), this.data.status);
    const anomalies = marks.anomaly.length + marks.alert.length;
    this.found.textContent = `${count(times.length, "bucket")} of ${step / 60000} min as the model of now judges them (${this.data.detector}): ${anomalies} anomal${anomalies === 1 ? "y" : "ies"}, ${marks.alert.length} of them alerts`;
    this.chart.canvas.setAttribute("aria-label", this.found.textContent);
    this.asked.rest(times.length ? this.#at(times.length - 1) : "no bucket has ended");
  }

  #at(place) {
    const { times, traffic, expected, low, high, statuses } = this.data;
    const of = (values) => withUnit(values[place], "bit/s");
    return `${day(times[place])}, ${clock(times[place])}: ${of(traffic)}, expected ${of(expected)}, allowed ${of(low)} to ${of(high)}, ${STATUSES[statuses[place]]}`;
  }
}
