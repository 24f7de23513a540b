// The panel that takes recordings: dropped files and folders, chosen ones, a link, the microphone.
import { say, toast } from "./announce.js";
import { button, el, icon } from "./dom.js";
import { t } from "./i18n.js";
import { optionsPanel } from "./options.js";
import { canRecord, recorderPanel } from "./recorder.js";
import { addFiles, addLink, EXTENSIONS, isSupported } from "./uploads.js";

const ACCEPT = EXTENSIONS.map((extension) => `.${extension}`).join(",");

export function dropPanel() {
  const files = picker({ multiple: true, accept: `${ACCEPT},audio/*,video/*` }, (chosen) => take(chosen));
  const folder = picker({ webkitdirectory: true }, (chosen) => takeFolder(chosen));
  const inset = el("div");
  const link = button(t("drop.link"), () => toggle("link", linkPanel), { symbol: "link", "aria-expanded": "false" });
  const record = button(t("drop.record"), () => toggle("record", recorderPanel), { symbol: "mic", "aria-expanded": "false" });
  let open = null;
  function toggle(name, make) {
    const close = () => { open = null; inset.replaceChildren(); marks(); };
    if (open === name) return close();
    open = name;
    inset.replaceChildren(make({ close, take }));
    marks();
    inset.querySelector("input, button")?.focus();
    return undefined;
  }
  function marks() {
    link.setAttribute("aria-expanded", String(open === "link"));
    record.setAttribute("aria-expanded", String(open === "record"));
  }
  record.hidden = !canRecord();
  return el("div", { class: "take" },
    el("section", { class: "drop", "aria-labelledby": "drop-title" }, icon("add"), el("h2", { id: "drop-title" }, t("drop.title")),
      el("p", { class: "hint" }, t("drop.hint")),
      el("div", { class: "ways" }, button(t("drop.files"), () => files.click(), { kind: "primary", symbol: "sheet" }),
        button(t("drop.folder"), () => folder.click(), { symbol: "folder" }), link, record),
      files, folder, inset),
    optionsPanel());
}

function picker(attributes, onChoose) {
  const input = el("input", { type: "file", hidden: true, ...attributes, on: { change: () => { onChoose([...input.files]); input.value = ""; } } });
  return input;
}

function linkPanel({ close }) {
  const input = el("input", { class: "input", type: "url", id: "link", required: true, pattern: "https?://.+", placeholder: "https://…", autocomplete: "off" });
  const send = (event) => {
    event.preventDefault();
    addLink(input.value.trim());
    close();
  };
  return el("form", { class: "inset", on: { submit: send } },
    el("div", { class: "field" }, el("label", { for: "link" }, t("link.label")),
      el("div", { class: "row" }, input, el("button", { class: "button primary" }, t("link.send")))));
}

function take(files) {
  if (!files.length) return;
  addFiles(files);
  say(t("drop.taken", { count: files.length }));
}

// A folder may hold anything: what is no recording is left out.
function takeFolder(files) {
  const recordings = files.filter((file) => isSupported(file.name) && !file.name.startsWith("."));
  if (recordings.length) take(recordings);
  if (!recordings.length) toast(t("drop.nothing"));
  else if (recordings.length < files.length) toast(t("drop.skipped", { count: files.length - recordings.length }));
}

// Take what is dropped anywhere on the page. Returns a function that stops it.
export function watchDrops() {
  let depth = 0;
  const mark = (inside) => document.body.classList.toggle("dropping", inside);
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].some((type) => type === "Files" || type === "text/uri-list");
  const listeners = {
    dragenter: (event) => { if (hasFiles(event)) { depth += 1; mark(true); } },
    dragleave: (event) => { if (hasFiles(event)) { depth = Math.max(0, depth - 1); mark(depth > 0); } },
    dragover: (event) => { if (hasFiles(event)) { event.preventDefault(); event.dataTransfer.dropEffect = "copy"; } },
    drop: (event) => { if (hasFiles(event)) { event.preventDefault(); depth = 0; mark(false); dropped(event.dataTransfer); } },
    paste: (event) => { if (event.clipboardData?.files.length) { event.preventDefault(); take([...event.clipboardData.files]); } },
  };
  for (const [name, listener] of Object.entries(listeners)) addEventListener(name, listener);
  return () => {
    mark(false);
    for (const [name, listener] of Object.entries(listeners)) removeEventListener(name, listener);
  };
}

async function dropped(transfer) {
  const address = transfer.getData("text/uri-list").split("\n").find((line) => /^https?:/.test(line));
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...transfer.files];
  if (entries.some((entry) => entry.isDirectory)) takeFolder((await Promise.all(entries.map(filesOf))).flat());
  else if (files.length) take(files);
  else if (address) addLink(address.trim());
}

async function filesOf(entry) {
  if (entry.isFile) return new Promise((resolve) => entry.file((file) => resolve([file]), () => resolve([])));
  const reader = entry.createReader();
  const found = [];
  // a reader returns at most a hundred entries a time
  for (;;) {
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!some.length) return found;
    for (const child of some) found.push(...(await filesOf(child)));
  }
}
