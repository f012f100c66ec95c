// A threshold that can be dragged: how many of the records shown would be anomalies, and the line for the file.

import { copyable } from "./detail.js";
import { count, make } from "./words.js";

// What is shown is what is counted, and what the line for the file has.
const rounded = (value) => Number(value.toPrecision(4));

export function written(value) {
  const [whole, decimals = ""] = String(rounded(value)).split(".");
  return whole.includes("e") ? whole : `${whole}.${decimals.padEnd(4, "0")}`;
}

// Places of the records that a threshold makes anomalies, by the rule of the detector.
export function over(evidence, threshold) {
  const places = [];
  for (let place = 0; place < evidence.length; place++) {
    if (evidence[place] !== null && evidence[place] > threshold) places.push(place);
  }
  return places;
}

// chart: of the errors; onMove is called with the value, to draw it.
export class Threshold {
  constructor(name, chart, onMove) {
    this.name = name;
    this.chart = chart;
    this.onMove = onMove;
    this.value = null;
    this.handle = make("div", { class: "handle", role: "slider", tabindex: "0", "aria-orientation": "vertical",
      "aria-label": `threshold of ${name} to try`, title: "Drag, or use the arrow keys, to try another threshold" }, make("span"));
    this.said = make("p", { class: "said" });
    const { line, button } = copyable(`line for the thresholds file, of ${name}`);
    this.line = line;
    this.where = make("p", { class: "where" });
    this.back = make("button", { type: "button" }, "Reset");
    this.tools = make("div", { class: "tools", hidden: true }, this.line, button, this.back, this.where);
    this.back.addEventListener("click", () => {
      this.move(null);
      this.handle.focus();
    });
    this.handle.addEventListener("pointerdown", (event) => {
      this.handle.setPointerCapture(event.pointerId);
      this.handle.focus();
      event.preventDefault();
    });
    this.handle.addEventListener("pointermove", (event) => {
      if (!this.handle.hasPointerCapture(event.pointerId)) return;
      const top = this.chart.canvas.getBoundingClientRect().top;
      this.move(this.chart.valueAt(event.clientY - top));
    });
    this.handle.addEventListener("keydown", (event) => this.#key(event));
  }

  // file: where the line belongs.
  show(key, inForce, evidence, file) {
    this.key = key;
    this.where.textContent = file ? `for ${file}` : "for the thresholds file";
    this.inForce = inForce;
    this.evidence = evidence;
    this.known = evidence.filter((one) => one !== null).length;
    this.#say();
  }

  // The threshold to draw: the one that is tried, or the one in force.
  get shown() {
    return this.value ?? this.inForce;
  }

  move(value) {
    this.value = value === null ? null : rounded(Math.max(value, 1e-6));
    this.onMove();
    this.#say();
  }

  #say() {
    const now = over(this.evidence, this.inForce).length;
    const then = over(this.evidence, this.shown).length;
    const of = `of ${count(this.known, "known record")}`;
    const text = this.value === null
      ? `Threshold ${written(this.inForce)} in force: ${now} ${of} are anomalies`
      : `${written(this.value)} would make anomalies of ${then} ${of}; ${written(this.inForce)} in force makes ${now}`;
    this.said.textContent = text;
    this.tools.hidden = this.value === null;
    this.line.value = `"${this.key}": ${written(this.shown)}`;
    const [low, high] = this.chart.content.range;
    this.handle.style.top = `${this.chart.y(this.shown)}px`;
    this.handle.setAttribute("aria-valuemin", Math.min(low, this.shown).toPrecision(3));
    this.handle.setAttribute("aria-valuemax", Math.max(high, this.shown).toPrecision(4));
    this.handle.setAttribute("aria-valuenow", this.shown);
    this.handle.setAttribute("aria-valuetext", text);
  }

  #key(event) {
    const factors = { ArrowUp: 1.01, ArrowRight: 1.01, ArrowDown: 1 / 1.01, ArrowLeft: 1 / 1.01, PageUp: 1.1, PageDown: 1 / 1.1 };
    if (event.key in factors) this.move(this.shown * factors[event.key]);
    else if (event.key === "Home" || (event.key === "Escape" && this.value !== null)) this.move(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
