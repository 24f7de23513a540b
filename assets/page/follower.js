// Keeps the text in step with the sound: marks what is heard, scrolls along until a person scrolls away.
import { button, el } from "./dom.js";
import { t } from "./i18n.js";
import { mark } from "./marks.js";
import { wordsOf } from "./transcript.js";

const AWAY = ["wheel", "touchmove"];

export class Follower {
  #listeners = new AbortController();
  #following = true;

  constructor(player, transcript) {
    Object.assign(this, { player, transcript });
    this.node = el("div", { class: "join", hidden: true }, button(t("follow"), () => this.catchUp(), { symbol: "wave", kind: "compact" }));
    const { signal } = this.#listeners;
    player.addEventListener("time", ({ detail }) => this.#heard(detail), { signal });
    transcript.addEventListener("rendered", () => this.#markWord(this.player.now), { signal });
    for (const name of AWAY) addEventListener(name, () => { if (player.playing) this.leave(); }, { signal, passive: true });
  }

  stop() {
    this.#listeners.abort();
  }

  leave() {
    this.#following = false;
    this.node.hidden = !this.player.playing;
  }

  join() {
    this.#following = true;
    this.node.hidden = true;
  }

  // Join, and scroll to what is heard.
  catchUp() {
    this.join();
    const index = this.segmentAt(this.player.now);
    if (index >= 0) this.transcript.reveal(index);
  }

  // The last segment that has begun; −1 before the first.
  segmentAt(seconds) {
    const { segments } = this.transcript;
    let [low, high] = [0, segments.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (segments[middle].start <= seconds + 0.02) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  #heard(seconds) {
    const index = this.segmentAt(seconds);
    const before = this.transcript.heard;
    this.transcript.hear(index);
    this.#markWord(seconds);
    if (index !== before && index >= 0 && this.#following && this.player.playing && !this.#editing()) this.transcript.reveal(index);
  }

  #editing() {
    return document.activeElement?.matches("textarea, input");
  }

  #markWord(seconds) {
    const index = this.transcript.heard;
    const segment = this.transcript.segments[index];
    const word = segment && wordsOf(segment).findLast(({ start }) => start <= seconds + 0.02);
    mark("heard", this.transcript, word && seconds <= word.end + 0.4 ? [{ index, from: word.from, to: word.to }] : []);
  }
}
