// What the details of nodes and ports have in common: a chart whose records can be asked for one by one.

import { make, utc } from "./words.js";

// chart in a frame; describe(place) says what the record there is, in words.
export class Asked {
  constructor(chart, label, describe) {
    this.chart = chart;
    this.describe = describe;
    this.place = null;
    this.rule = make("div", { class: "rule", hidden: true });
    this.answer = make("p", { class: "answer", "aria-live": "polite" });
    this.frame = make("div", { class: "frame", tabindex: "0", role: "group",
      "aria-label": `${label}: left and right arrow keys read single records` }, chart.canvas, this.rule);
    this.frame.addEventListener("pointermove", (event) => {
      if (this.chart.content?.times.length) this.ask(this.chart.placeAt(event.clientX - this.chart.canvas.getBoundingClientRect().left));
    });
    this.frame.addEventListener("pointerleave", () => this.ask(null));
    this.frame.addEventListener("blur", () => this.ask(null));
    this.frame.addEventListener("keydown", (event) => this.#key(event));
  }

  ask(place) {
    this.place = place;
    this.rule.hidden = place === null;
    this.answer.textContent = place === null ? this.usual ?? "" : this.describe(place);
    this.answer.title = place === null ? "" : utc(this.chart.content.times[place]);
    if (place !== null) this.rule.style.left = `${this.chart.x(this.chart.content.times[place])}px`;
  }

  // What stands there while nothing is asked.
  rest(text) {
    this.usual = text;
    if (this.place === null) this.answer.textContent = text;
  }

  #key(event) {
    if (event.target !== this.frame) return;
    const last = (this.chart.content?.times.length ?? 0) - 1;
    if (last < 0) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 };
    if (event.key in steps) this.ask(Math.min(Math.max((this.place ?? last + 1) + steps[event.key], 0), last));
    else if (event.key === "Home") this.ask(0);
    else if (event.key === "End") this.ask(last);
    else if (event.key === "Escape" && this.place !== null) this.ask(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

// A line of text that a button copies.
export function copyable(label) {
  const line = make("input", { class: "line", readonly: true, "aria-label": label });
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(line.value);
    } catch {
      // Without HTTPS, browsers have no clipboard but on the host itself.
      line.select();
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return { line, button };
}

export function legend(...parts) {
  return make("ul", { class: "legend", "aria-label": "Legend" }, ...parts.map(([kind, text]) =>
    make("li", {}, make("span", { class: `key ${kind}`, "aria-hidden": "true" }), text)));
}
