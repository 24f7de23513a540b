// The loudness of a recording as a strip: silences are seen, and any place can be sought.
import { el } from "./dom.js";
import { clock, spoken } from "./format.js";

const BAR = 3;
const GAP = 1;
const STEP = 5;
const FAR = 60;

export class Strip {
  #peaks = null;
  #at = 0;
  #drawn = "";

  // onSeek(seconds); name: for screen readers.
  constructor({ duration, onSeek, name }) {
    Object.assign(this, { duration, onSeek });
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.hover = el("span", { class: "hover numeric", "aria-hidden": "true", hidden: true });
    this.node = el("div", { class: "strip", role: "slider", tabindex: 0, "aria-label": name, "aria-valuemin": 0,
      on: { pointerdown: (event) => this.#grab(event), pointermove: (event) => this.#moved(event), pointerleave: () => { this.hover.hidden = true; }, keydown: (event) => this.#key(event) } },
    this.canvas, this.hover);
    this.observer = new ResizeObserver(() => this.#draw(true));
    this.observer.observe(this.node);
    this.repaint = () => this.#draw(true);
    addEventListener("theme", this.repaint);
    this.scheme = matchMedia("(prefers-color-scheme: dark)");
    this.scheme.addEventListener("change", this.repaint);
    this.setDuration(duration);
  }

  stop() {
    this.observer.disconnect();
    removeEventListener("theme", this.repaint);
    this.scheme.removeEventListener("change", this.repaint);
  }

  setDuration(duration) {
    this.duration = duration || 0;
    this.node.setAttribute("aria-valuemax", Math.round(this.duration));
    this.#draw(true);
  }

  // peaks: loudness of equal parts of the recording, 0 to 1. The square of a level is easier to see than the level.
  setPeaks(peaks) {
    this.#peaks = peaks;
    this.#draw(true);
  }

  show(seconds) {
    this.#at = seconds;
    const whole = String(Math.round(seconds));
    if (this.node.getAttribute("aria-valuenow") !== whole) {
      this.node.setAttribute("aria-valuenow", whole);
      this.node.setAttribute("aria-valuetext", spoken(seconds));
    }
    this.#draw();
  }

  #draw(fresh = false) {
    const { clientWidth: width, clientHeight: height } = this.node;
    if (!width) return;
    const played = this.duration ? Math.round((this.#at / this.duration) * width) : 0;
    const key = `${played} ${width} ${height}`;
    if (!fresh && key === this.#drawn) return;
    this.#drawn = key;
    const ratio = devicePixelRatio || 1;
    Object.assign(this.canvas, { width: width * ratio, height: height * ratio });
    const brush = this.canvas.getContext("2d");
    brush.scale(ratio, ratio);
    const style = getComputedStyle(this.node);
    const [past, future] = [style.getPropertyValue("accent-color"), style.color];
    for (let left = 0; left < width; left += BAR + GAP) {
      const tall = Math.max(2, this.#loudness(left / width, (left + BAR) / width) * (height - 4));
      brush.fillStyle = left < played ? past : future;
      brush.fillRect(left, (height - tall) / 2, BAR, tall);
    }
    brush.fillStyle = past;
    brush.fillRect(Math.max(0, Math.min(width - 2, played - 1)), 0, 2, height);
  }

  #loudness(from, to) {
    if (!this.#peaks?.length) return 0;
    const { length } = this.#peaks;
    const first = Math.min(length - 1, Math.floor(from * length));
    const last = Math.max(first + 1, Math.ceil(to * length));
    return Math.max(...this.#peaks.slice(first, last)) ** 2;
  }

  #secondsAt(event) {
    const box = this.node.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * this.duration;
  }

  #grab(event) {
    this.node.setPointerCapture(event.pointerId);
    this.onSeek(this.#secondsAt(event));
  }

  #moved(event) {
    const seconds = this.#secondsAt(event);
    this.hover.hidden = false;
    this.hover.textContent = clock(seconds);
    this.hover.style.left = `${event.clientX - this.node.getBoundingClientRect().left}px`;
    if (event.buttons) this.onSeek(seconds);
  }

  #key(event) {
    const places = { ArrowLeft: this.#at - STEP, ArrowDown: this.#at - STEP, ArrowRight: this.#at + STEP, ArrowUp: this.#at + STEP,
      PageDown: this.#at - FAR, PageUp: this.#at + FAR, Home: 0, End: this.duration };
    if (!(event.key in places)) return;
    event.preventDefault();
    event.stopPropagation();
    this.onSeek(Math.max(0, Math.min(this.duration, places[event.key])));
  }
}
