// Keys of the reader, and the dialog that lists them.
import { show, submit } from "./dialog.js";
import { el } from "./dom.js";
import { t } from "./i18n.js";

const JUMP = 5;
const SHOWN = [["Space", "keys.play"], ["← →", "keys.jump"], ["j k", "keys.segment"], ["↑ ↓", "keys.rows"], ["< >", "keys.speed"], ["e", "keys.edit"], ["u", "keys.unsure"], ["/", "keys.search"], ["?", "keys"]];

// Keys work anywhere in the view, except in fields and where a control has the same key itself.
export function listenForKeys(reader, signal) {
  const { transcript } = reader;
  const actions = {
    " ": () => reader.player?.playPause(),
    ArrowLeft: () => jump(-JUMP),
    ArrowRight: () => jump(JUMP),
    j: () => go(1),
    k: () => go(-1),
    "<": () => reader.player?.changeSpeed(-1),
    ">": () => reader.player?.changeSpeed(1),
    e: () => reader.corrections.edit(transcript.cursor),
    u: () => reader.unsure.step(1),
    U: () => reader.unsure.step(-1),
    "/": () => reader.search.focus(),
    "?": () => shortcutsDialog(),
  };
  function jump(seconds) {
    if (reader.player) reader.player.seek(reader.player.now + seconds);
  }
  function go(step) {
    const at = reader.follower ? reader.follower.segmentAt(reader.player.now) : transcript.cursor;
    const segment = transcript.segments[Math.max(0, Math.min(transcript.segments.length - 1, at + step))];
    if (!segment) return;
    reader.player?.seek(segment.start);
    reader.follower?.catchUp();
  }
  document.addEventListener("keydown", (event) => {
    const action = actions[event.key];
    const inField = event.target.closest("input, textarea, select, dialog");
    const own = event.key === " " && event.target.closest("button, a, summary");
    if (!action || inField || own || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  }, { signal });
}

export function shortcutsDialog() {
  const rows = SHOWN.flatMap(([key, text]) => [el("dt", {}, key.split(" ").map((one) => el("kbd", {}, one))), el("dd", {}, t(text))]);
  show(t("keys"), el("dl", { class: "keys" }, rows), { actions: submit(t("close")) });
}
