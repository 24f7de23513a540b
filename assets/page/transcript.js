// The text of a recording. Hours of it stay smooth: rows exist only near what is seen, in blocks of BLOCK segments.
import { button, el, icon } from "./dom.js";
import { clock, spoken } from "./format.js";
import { t } from "./i18n.js";

const BLOCK = 40;
const NEAR = "1200px";
const LETTERS = 64;
const LINE = 30;
const ROW = 22;

// Fires `rendered` when rows came or went. onSeek(seconds), onEdit(index).
export class Transcript extends EventTarget {
  segments = [];
  heard = -1;
  #blocks = [];
  #cursor = 0;
  #kept = new Set();

  constructor({ onSeek, onEdit }) {
    super();
    Object.assign(this, { onSeek, onEdit });
    this.node = el("div", { class: "transcript", role: "list", "aria-label": t("reader.text"), on: { click: (event) => this.#clicked(event), keydown: (event) => this.#key(event), focusin: (event) => this.#focused(event) } });
    this.observer = new IntersectionObserver((entries) => this.#seen(entries), { rootMargin: `${NEAR} 0px` });
  }

  stop() {
    this.observer.disconnect();
  }

  // Replace all segments.
  set(segments) {
    this.segments = segments;
    this.#blocks.forEach((block) => { this.observer.unobserve(block); block.remove(); });
    this.#blocks = [];
    this.#grow();
  }

  // Add a segment of a running transcription; one that is repeated replaces its earlier version.
  put(segment) {
    const known = this.segments.findLastIndex((other) => other.id === segment.id);
    if (known >= 0) {
      this.segments[known] = segment;
      this.redraw(known);
      return;
    }
    this.segments.push(segment);
    this.#grow();
    const last = this.#blocks.at(-1);
    if (last.shown) this.#fill(last);
  }

  #grow() {
    while (this.#blocks.length * BLOCK < this.segments.length) {
      const block = el("div", { role: "presentation", class: "block" });
      Object.assign(block, { first: this.#blocks.length * BLOCK, shown: false });
      this.#blocks.push(block);
      this.#empty(block);
      this.node.append(block);
      this.observer.observe(block);
    }
  }

  #seen(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting === target.shown) continue;
      if (isIntersecting) this.#fill(target);
      else if (!target.contains(document.activeElement) && !this.#keeps(target)) this.#empty(target);
    }
    this.dispatchEvent(new Event("rendered"));
  }

  #keeps(block) {
    return [...this.#kept].some((index) => Math.floor(index / BLOCK) === block.first / BLOCK);
  }

  // Keep a row that is being edited, however far away a person scrolls.
  keep(index, kept) {
    if (kept) this.#kept.add(index);
    else this.#kept.delete(index);
  }

  #empty(block) {
    const segments = this.segments.slice(block.first, block.first + BLOCK);
    const guess = segments.reduce((sum, segment) => sum + ROW + LINE * Math.ceil(segment.text.length / LETTERS), 0);
    block.style.height = `${block.shown ? block.offsetHeight : guess}px`;
    block.shown = false;
    block.replaceChildren();
  }

  #fill(block) {
    const last = Math.min(block.first + BLOCK, this.segments.length);
    for (let index = block.first + block.children.length; index < last; index += 1) block.append(this.#row(index));
    block.style.height = "";
    block.shown = true;
  }

  #row(index) {
    const segment = this.segments[index];
    const reachable = index === this.#cursor ? 0 : -1;
    const node = el("div", { class: "segment", role: "listitem", "aria-posinset": index + 1, "aria-setsize": this.segments.length, data: { index } },
      el("button", { type: "button", class: "at numeric", tabindex: reachable, "aria-label": t("reader.from", { time: spoken(segment.start) }) }, clock(segment.start)),
      el("p", { class: "said", dir: "auto" }, segment.text),
      el("span", { class: "tail" }, segment.correction && el("span", { class: "corrected", title: t("correct.was", { text: segment.correction.machine_text }) }, icon("edit"), el("span", { class: "hidden-text" }, t("correct.mark"))),
        this.onEdit && button(t("correct"), null, { symbol: "edit", square: true, kind: "plain compact edit", tabindex: reachable })));
    if (index === this.heard) this.#mark(node, true);
    return node;
  }

  // The row of a segment, or null while it is far from what is seen.
  row(index) {
    const block = this.#blocks[Math.floor(index / BLOCK)];
    return block?.shown ? block.children[index - block.first] ?? null : null;
  }

  redraw(index) {
    const row = this.row(index);
    if (!row) return;
    const focused = row.contains(document.activeElement);
    row.replaceWith(this.#row(index));
    if (focused) this.focus(index);
    this.dispatchEvent(new Event("rendered"));
  }

  // Bring a segment into view. A far one is made first, so that its height is real.
  reveal(index, { block = "center" } = {}) {
    const holder = this.#blocks[Math.floor(index / BLOCK)];
    if (!holder) return;
    if (!holder.shown) this.#fill(holder);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const row = this.row(index);
    const { top } = row.getBoundingClientRect();
    const near = Math.abs(top - innerHeight / 2) < innerHeight * 1.5;
    row.scrollIntoView({ block, behavior: still || !near ? "instant" : "smooth" });
    this.dispatchEvent(new Event("rendered"));
  }

  hear(index) {
    if (index === this.heard) return;
    this.#mark(this.row(this.heard), false);
    this.heard = index;
    this.#mark(this.row(index), true);
    if (index >= 0 && !this.node.contains(document.activeElement)) this.#move(index);
  }

  #mark(row, heard) {
    if (!row) return;
    row.classList.toggle("heard", heard);
    if (heard) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }

  // One row at a time can be reached by Tab; arrows move among rows.
  #move(index) {
    const reach = (row, value) => row?.querySelectorAll("button").forEach((control) => { control.tabIndex = value; });
    reach(this.row(this.#cursor), -1);
    this.#cursor = index;
    reach(this.row(index), 0);
  }

  focus(index) {
    this.reveal(index, { block: "nearest" });
    this.#move(index);
    this.row(index)?.querySelector(".at").focus({ preventScroll: true });
  }

  get cursor() {
    return this.#cursor;
  }

  #focused(event) {
    const row = event.target.closest(".segment");
    if (row) this.#move(Number(row.dataset.index));
  }

  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.target.matches("textarea, input")) return;
    event.preventDefault();
    event.stopPropagation();
    this.focus(Math.max(0, Math.min(this.segments.length - 1, this.#cursor + step)));
  }

  #clicked(event) {
    const row = event.target.closest(".segment");
    if (!row || event.target.closest("form")) return;
    const index = Number(row.dataset.index);
    if (event.target.closest(".edit")) this.onEdit(index);
    else if (event.target.closest(".at")) this.onSeek(this.segments[index].start);
    else if (event.target.closest(".said") && getSelection().isCollapsed) this.onSeek(timeAt(this.segments[index], event));
  }
}

// The time of the word under the pointer, or of the segment.
function timeAt(segment, event) {
  const place = document.caretPositionFromPoint?.(event.clientX, event.clientY);
  const offset = place?.offset ?? document.caretRangeFromPoint?.(event.clientX, event.clientY)?.startOffset ?? 0;
  return wordsOf(segment).findLast((word) => word.from <= offset)?.start ?? segment.start;
}

const places = new WeakMap();

// The words of a segment with their place in its text: {start, end, probability, from, to}. Those that a correction took out are missing.
export function wordsOf(segment) {
  if (!places.has(segment)) {
    const found = [];
    let from = 0;
    for (const { word, start, end, probability } of segment.words ?? []) {
      const text = word.trim();
      const at = segment.text.indexOf(text, from);
      if (!text || at < 0) continue;
      from = at + text.length;
      found.push({ start, end, probability, from: at, to: from });
    }
    places.set(segment, found);
  }
  return places.get(segment);
}
