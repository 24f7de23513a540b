// The recording's player: our own controls around an audio or video element.
import { button, el, icon, write } from "./dom.js";
import { clock } from "./format.js";
import { t } from "./i18n.js";
import { recall, remember } from "./memory.js";
import { Strip } from "./strip.js";

const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3];
const JUMP = 5;
const RENEWALS = 3;

// Fires `time` while playing and after each seek, and `state`. source(): resolves to {url, video}; addresses expire.
export class Player extends EventTarget {
  #frame = null;
  #renewed = 0;
  #stopped = false;
  #wanted = null;

  constructor({ source, duration, title }) {
    super();
    Object.assign(this, { source, duration });
    this.strip = new Strip({ duration, onSeek: (seconds) => this.seek(seconds), name: t("player.position") });
    this.time = el("span", { class: "numeric player-time" });
    this.toggle = button(t("player.play"), () => this.playPause(), { symbol: "play", square: true, kind: "primary round" });
    this.speed = el("select", { class: "input speed", "aria-label": t("player.speed"), on: { change: () => this.#setSpeed(Number(this.speed.value)) } },
      SPEEDS.map((speed) => el("option", { value: speed, selected: speed === (recall("speed") ?? 1) }, `${speed}×`)));
    this.controls = el("div", { class: "controls" }, this.#jump(-JUMP), this.toggle, this.#jump(JUMP), this.time, this.strip.node, this.speed);
    this.note = el("p", { class: "player-note soft", role: "status", hidden: true });
    this.stage = el("div", { class: "stage", hidden: true });
    this.node = el("section", { class: "player", "aria-label": t("player", { name: title }) }, this.note, this.controls);
    this.#show(0);
  }

  #jump(seconds) {
    return button(t(seconds < 0 ? "player.back" : "player.forward", { count: JUMP }), () => this.seek(this.now + seconds), { kind: "plain compact jump numeric" });
  }

  get now() {
    return this.#wanted ?? this.media?.currentTime ?? 0;
  }

  get playing() {
    return Boolean(this.media && !this.media.paused);
  }

  // Get the address of the recording and load its beginning.
  async load() {
    let found;
    try {
      found = await this.source();
    } catch (error) {
      this.#fail(error);
      return;
    }
    if (this.#stopped) return;
    if (!this.media) this.#make(found.video);
    this.media.src = found.url;
  }

  #make(video) {
    this.media = el(video ? "video" : "audio", { preload: "metadata", playsinline: true, on: { click: () => this.playPause() } });
    this.stage.append(this.media);
    this.stage.hidden = !video;
    for (const name of ["play", "pause", "ended", "waiting", "playing"]) this.media.addEventListener(name, () => this.#stateChanged());
    this.media.addEventListener("loadedmetadata", () => this.#loaded());
    this.media.addEventListener("seeked", () => this.#show(this.media.currentTime));
    this.media.addEventListener("error", () => this.#renew());
  }

  #loaded() {
    this.#renewed = 0;
    this.note.hidden = true;
    if (Number.isFinite(this.media.duration)) this.duration = this.media.duration;
    this.strip.setDuration(this.duration);
    this.media.playbackRate = recall("speed") ?? 1;
    if (this.#wanted !== null) this.media.currentTime = this.#wanted;
    this.#wanted = null;
    this.#show(this.media.currentTime);
    if (this.resume) this.media.play().catch(() => {});
    this.resume = false;
  }

  // An address has expired, or the connection broke: go on from here with a new one.
  async #renew() {
    if (this.#stopped || this.media.error?.code === MediaError.MEDIA_ERR_DECODE) {
      this.#fail(new Error(t("player.unplayable")));
      return;
    }
    if (this.#renewed >= RENEWALS) {
      this.#fail(new Error(t(this.media.error?.code === MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED ? "player.unplayable" : "player.lost")));
      return;
    }
    this.#renewed += 1;
    this.#wanted ??= this.media.currentTime;
    this.resume ||= !this.media.paused;
    await new Promise((resolve) => setTimeout(resolve, 400 * this.#renewed));
    await this.load();
  }

  #fail(error) {
    this.note.hidden = false;
    write(this.note, error.status === 404 || error.status === 410 ? t("player.gone") : error.message);
    this.controls.classList.add("off");
    this.toggle.disabled = true;
  }

  playPause() {
    if (!this.media || this.toggle.disabled) return;
    if (this.media.paused) this.media.play().catch(() => {});
    else this.media.pause();
  }

  seek(seconds) {
    const place = Math.max(0, Math.min(seconds, this.duration || seconds));
    if (this.media?.readyState > 0) this.media.currentTime = place;
    else this.#wanted = place;
    this.#show(place);
    this.dispatchEvent(new Event("moved"));
  }

  changeSpeed(step) {
    const at = SPEEDS.indexOf(recall("speed") ?? 1);
    this.#setSpeed(SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, at + step))]);
    this.speed.value = String(recall("speed"));
  }

  #setSpeed(speed) {
    remember("speed", speed);
    if (this.media) this.media.playbackRate = speed;
  }

  #stateChanged() {
    const label = t(this.playing ? "player.pause" : "player.play");
    this.toggle.replaceChildren(icon(this.playing ? "pause" : "play"));
    this.toggle.title = label;
    this.toggle.setAttribute("aria-label", label);
    cancelAnimationFrame(this.#frame);
    if (this.playing) this.#follow();
    this.dispatchEvent(new Event("state"));
  }

  #follow = () => {
    this.#show(this.media.currentTime);
    this.#frame = requestAnimationFrame(this.#follow);
  };

  #show(seconds) {
    write(this.time, `${clock(seconds)} / ${clock(this.duration)}`);
    this.strip.show(seconds);
    this.dispatchEvent(new CustomEvent("time", { detail: seconds }));
  }

  stop() {
    this.#stopped = true;
    cancelAnimationFrame(this.#frame);
    this.media?.pause();
    this.media?.removeAttribute("src");
    this.strip.stop();
  }
}
