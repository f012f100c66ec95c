// A chart of one level or one error over time, drawn on a canvas; a reader asks for single records.

import { day, figure, hourAndMinute } from "./words.js";

// Room around the axes, in pixels.
const LEFT = 52, RIGHT = 10, TOP = 8, BOTTOM = 20;
const MINUTE = 60000;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880].map((minutes) => minutes * MINUTE);

const colours = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["line", "expected", "band", "grid", "text", "alert", "anomaly", "unknown", "ground"]) {
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  }
}
export const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => readColours());

// The numbers of an axis between two ends, few and round.
function roundNumbers(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough) ?? 10 * power;
  const numbers = [];
  for (let n = Math.ceil(low / step); n * step <= high + step * 1e-6; n++) numbers.push(n * step);
  return numbers;
}

function powers(low, high) {
  const numbers = [];
  const multiples = high / low > 200 ? [1] : high / low > 20 ? [1, 3] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const one of multiples) {
      const number = one * 10 ** power;
      if (number >= low && number <= high) numbers.push(Number(number.toPrecision(3)));
    }
  }
  return numbers;
}

// content: times, from and to (ms), lines (kind -> values), low and high of the band, marks (status -> places),
// unknown (places), ticks (places), line (a number), range (low and high end of the axis), isLog, divisor, step.
export class Chart {
  constructor(height) {
    this.height = height;
    this.canvas = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.style.height = `${height}px`;
    this.content = null;
    this.width = 0;
    new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width && width !== this.width) {
        this.width = width;
        this.draw();
      }
    }).observe(this.canvas);
    dark.addEventListener("change", () => this.draw());
  }

  show(content) {
    this.content = content;
    this.draw();
  }

  x(time) {
    const { from, to } = this.content;
    return LEFT + ((time - from) / (to - from)) * (this.width - LEFT - RIGHT);
  }

  y(value) {
    const { range: [low, high], isLog } = this.content;
    const place = isLog
      ? (Math.log(Math.max(value, low / 10)) - Math.log(low)) / (Math.log(high) - Math.log(low))
      : (value - low) / (high - low);
    const room = this.height - TOP - BOTTOM;
    return TOP + room * (1 - Math.min(Math.max(place, -0.02), 1.02));
  }

  // The value at a height in the chart.
  valueAt(y) {
    const { range: [low, high], isLog } = this.content;
    const place = Math.min(Math.max(1 - (y - TOP) / (this.height - TOP - BOTTOM), 0), 1);
    return isLog ? low * (high / low) ** place : low + place * (high - low);
  }

  // The place of the record nearest to a distance from the left.
  placeAt(x) {
    const { times, from, to } = this.content;
    const time = from + ((x - LEFT) / (this.width - LEFT - RIGHT)) * (to - from);
    let first = 0, last = times.length - 1;
    while (first < last) {
      const middle = (first + last) >> 1;
      if (times[middle] < time) first = middle + 1;
      else last = middle;
    }
    return first > 0 && time - times[first - 1] < times[first] - time ? first - 1 : first;
  }

  draw() {
    if (!this.content || !this.width) return;
    if (!colours.line) readColours();
    const ratio = devicePixelRatio || 1;
    this.canvas.width = this.width * ratio;
    this.canvas.height = this.height * ratio;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "11px system-ui, sans-serif";
    this.#axes(pen);
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, 0, this.width - LEFT - RIGHT + 4, this.height - BOTTOM + 1);
    pen.clip();
    this.#unknown(pen);
    if (this.content.low) this.#band(pen);
    this.#line(pen, this.content.lines.expected, colours.expected, 1, [4, 3]);
    this.#line(pen, this.content.lines.actual, colours.line, 1.5, []);
    this.#threshold(pen);
    this.#marks(pen);
    pen.restore();
  }

  #axes(pen) {
    const { range: [low, high], isLog, divisor, from, to } = this.content;
    const bottom = this.height - BOTTOM;
    pen.lineWidth = 1;
    pen.strokeStyle = colours.grid;
    pen.fillStyle = colours.text;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    const numbers = isLog ? powers(low, high) : roundNumbers(low / divisor, high / divisor, this.height / 34).map((one) => one * divisor);
    for (const number of numbers) {
      const y = Math.round(this.y(number)) + 0.5;
      pen.beginPath();
      pen.moveTo(LEFT, y);
      pen.lineTo(this.width - RIGHT, y);
      pen.stroke();
      pen.fillText(figure(number / divisor), LEFT - 6, y);
    }
    const room = ((this.width - LEFT - RIGHT) / (to - from)) * MINUTE;
    const step = STEPS.find((one) => (one / MINUTE) * room >= 62) ?? STEPS.at(-1);
    // Whole hours and days by the reader's clock.
    const shift = new Date(from).getTimezoneOffset() * MINUTE;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (let time = Math.ceil((from - shift) / step) * step + shift; time <= to; time += step) {
      const x = Math.round(this.x(time)) + 0.5;
      pen.beginPath();
      pen.moveTo(x, bottom);
      pen.lineTo(x, bottom + 4);
      pen.stroke();
      if (x < this.width - 22) pen.fillText(step >= 1440 * MINUTE ? day(time) : hourAndMinute(time), x, bottom + 6);
    }
    pen.beginPath();
    pen.moveTo(LEFT, bottom + 0.5);
    pen.lineTo(this.width - RIGHT, bottom + 0.5);
    pen.stroke();
  }

  // Whether a line goes on to this record: there are none between it and the one before.
  #goesOn(place) {
    const { times, step } = this.content;
    return place > 0 && times[place] - times[place - 1] <= 1.6 * step;
  }

  #line(pen, values, colour, width, dashes) {
    if (!values) return;
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.lineJoin = "round";
    pen.setLineDash(dashes);
    pen.beginPath();
    let isDown = false;
    for (let place = 0; place < values.length; place++) {
      if (values[place] === null) {
        isDown = false;
        continue;
      }
      const x = this.x(this.content.times[place]), y = this.y(values[place]);
      if (isDown && this.#goesOn(place)) pen.lineTo(x, y);
      // A record between two gaps is a dot.
      else pen.moveTo(x - 0.5, y), pen.lineTo(x, y);
      isDown = true;
    }
    pen.stroke();
    pen.setLineDash([]);
  }

  #band(pen) {
    const { low, high, times } = this.content;
    pen.fillStyle = colours.band;
    let places = [];
    const fill = () => {
      if (places.length) {
        pen.beginPath();
        for (const place of places) pen.lineTo(this.x(times[place]), this.y(high[place]));
        for (const place of places.reverse()) pen.lineTo(this.x(times[place]), this.y(low[place]));
        pen.fill();
      }
      places = [];
    };
    for (let place = 0; place < times.length; place++) {
      const isKnown = low[place] !== null && high[place] !== null;
      if (!isKnown || !this.#goesOn(place)) fill();
      if (isKnown) places.push(place);
    }
    fill();
  }

  // Stripes where nothing is known.
  #unknown(pen) {
    const { unknown, times, step } = this.content;
    if (!unknown?.length) return;
    pen.strokeStyle = colours.unknown;
    pen.lineWidth = 1;
    const bottom = this.height - BOTTOM;
    pen.save();
    pen.beginPath();
    for (const place of unknown) {
      const left = this.x(times[place] - step);
      pen.rect(left, TOP, this.x(times[place]) - left, bottom - TOP);
    }
    pen.clip();
    pen.beginPath();
    for (let x = LEFT - bottom; x < this.width; x += 6) {
      pen.moveTo(x, bottom);
      pen.lineTo(x + bottom, 0);
    }
    pen.stroke();
    pen.restore();
  }

  #threshold(pen) {
    const { line, ticks, times } = this.content;
    if (line !== undefined) {
      pen.strokeStyle = colours.text;
      pen.lineWidth = 1;
      pen.setLineDash([1, 3]);
      pen.beginPath();
      pen.moveTo(LEFT, this.y(line));
      pen.lineTo(this.width - RIGHT, this.y(line));
      pen.stroke();
      pen.setLineDash([]);
    }
    pen.strokeStyle = colours.alert;
    pen.lineWidth = 2;
    pen.beginPath();
    for (const place of ticks ?? []) {
      pen.moveTo(this.x(times[place]), this.height - BOTTOM - 7);
      pen.lineTo(this.x(times[place]), this.height - BOTTOM);
    }
    pen.stroke();
  }

  // An anomaly is a triangle, an alert a diamond; a quiet anomaly is hollow.
  #marks(pen) {
    const { marks, lines } = this.content;
    const found = Object.entries(marks ?? {}).flatMap(([status, places]) =>
      places.filter((place) => lines.actual[place] !== null).map((place) => [status, place]));
    // All edges first: where marks crowd, edges of their own would hide their colour.
    pen.strokeStyle = colours.text;
    pen.lineWidth = 1.5;
    for (const [status, place] of found) {
      this.#shape(pen, status, place);
      pen.stroke();
    }
    for (const [status, place] of found) {
      pen.fillStyle = status === "quiet" ? colours.ground : colours[status];
      this.#shape(pen, status, place);
      pen.fill();
    }
  }

  #shape(pen, status, place) {
    const x = this.x(this.content.times[place]), y = this.y(this.content.lines.actual[place]);
    pen.beginPath();
    if (status === "alert") {
      pen.moveTo(x, y - 5);
      pen.lineTo(x + 5, y);
      pen.lineTo(x, y + 5);
      pen.lineTo(x - 5, y);
    } else {
      pen.moveTo(x, y - 5);
      pen.lineTo(x + 5, y + 4);
      pen.lineTo(x - 5, y + 4);
    }
    pen.closePath();
  }
}

// The ends of an axis on which levels can be seen. The upper end of a band is seen if it is within ten times of
// them; what is farther, and the lower end, only as far as it is near.
export function rangeOf(values, bounds) {
  const known = values.flat().filter((one) => one !== null);
  if (!known.length) return [0, 1];
  let low = known.reduce((a, b) => Math.min(a, b)), high = known.reduce((a, b) => Math.max(a, b));
  const room = Math.max(high - low, Math.abs(high) * 0.02, 1e-9);
  const far = 10 * Math.max(Math.abs(low), Math.abs(high));
  let highest = high;
  for (const one of bounds) {
    if (one === null) continue;
    low = Math.min(low, Math.max(one, low - room));
    highest = Math.max(highest, one <= far ? one : Math.min(one, high + room));
  }
  high = highest;
  if (low >= 0 && low < 0.6 * high) low = 0;
  const pad = Math.max(high - low, Math.abs(high) * 0.02, 1e-9) * 0.08;
  return [low === 0 ? 0 : low - pad, high + pad];
}

// The same for errors, on a logarithmic axis.
export function logRange(values, threshold) {
  const known = values.filter((one) => one > 0);
  const high = Math.max(threshold, known.reduce((a, b) => Math.max(a, b), 0)) * 1.6;
  const low = Math.min(threshold, known.reduce((a, b) => Math.min(a, b), threshold)) / 1.6;
  return [Math.max(low, high / 1e4, 1e-9), Math.max(high, 1e-8)];
}
