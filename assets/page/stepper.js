// Steps through places of the text: what a search found, or the words that the model was unsure of.
import { say } from "./announce.js";
import { button, el, write } from "./dom.js";
import { mark } from "./marks.js";
import { t } from "./i18n.js";

// name: of the marks; label(count): text of the counter; onStep(place): go there.
export class Stepper {
  places = [];
  at = -1;

  constructor(transcript, name, { label, onStep, labels }) {
    Object.assign(this, { transcript, name, label, onStep });
    this.count = el("span", { class: "small numeric" });
    this.buttons = [button(labels[0], () => this.step(-1), { symbol: "up", square: true, kind: "plain compact" }), button(labels[1], () => this.step(1), { symbol: "down", square: true, kind: "plain compact" })];
    this.node = el("span", { class: "stepper" }, this.count, this.buttons);
    transcript.addEventListener("rendered", () => this.paint());
  }

  set(places) {
    const stood = this.places[this.at];
    this.places = places;
    this.at = stood ? places.findIndex((place) => place.index === stood.index && place.from === stood.from) : -1;
    this.#write();
    this.paint();
  }

  paint() {
    mark(this.name, this.transcript, this.places);
    mark(`${this.name}-now`, this.transcript, this.at >= 0 ? [this.places[this.at]] : []);
  }

  step(by) {
    if (!this.places.length) return;
    this.at = this.at < 0 ? this.#nearest(by) : (this.at + by + this.places.length) % this.places.length;
    const place = this.places[this.at];
    this.onStep(place);
    this.paint();
    this.#write();
    const { text } = this.transcript.segments[place.index];
    say(t("step.said", { at: this.at + 1, count: this.places.length, text: text.slice(place.from, place.to) }));
  }

  #nearest(by) {
    const after = this.places.findIndex((place) => place.index >= this.transcript.cursor);
    if (by > 0) return Math.max(0, after);
    return after <= 0 ? this.places.length - 1 : after - 1;
  }

  #write() {
    const { length } = this.places;
    write(this.count, this.at >= 0 ? t("step.at", { at: this.at + 1, total: length }) : this.label(length));
    this.buttons.forEach((control) => { control.disabled = !length; });
    (this.holder ?? this.node).hidden = !length && !this.count.textContent;
  }
}
