// Menus to take the text away: copied, or downloaded in every format of the service.
import { say, toast } from "./announce.js";
import { call, send } from "./api.js";
import { button, el } from "./dom.js";
import { clock } from "./format.js";
import { has, t } from "./i18n.js";

const KNOWN = ["txt", "srt", "vtt", "json", "tsv"];
let formats = null;

// A button with a sheet of choices. choices(): [[label, hint, function], …], also as a promise. The scrim takes clicks elsewhere.
export function menu(label, symbol, choices) {
  const sheet = el("div", { class: "sheet" });
  const over = el("div", { hidden: true }, el("div", { class: "scrim", on: { click: () => close() } }), sheet);
  const opener = button(label, () => open(), { symbol, "aria-expanded": "false", "aria-haspopup": "true" });
  const node = el("div", { class: "menu", on: { keydown: (event) => key(event), focusout: (event) => { if (event.relatedTarget && !node.contains(event.relatedTarget)) close(); } } }, opener, over);
  async function open() {
    const items = await choices();
    sheet.replaceChildren(...items.map(([text, hint, action]) =>
      el("button", { type: "button", on: { click: () => { close(); opener.focus(); action(); } } }, text, hint && el("span", { class: "soft small" }, hint))));
    over.hidden = false;
    opener.setAttribute("aria-expanded", "true");
    sheet.querySelector("button").focus();
  }
  function close() {
    over.hidden = true;
    opener.setAttribute("aria-expanded", "false");
  }
  function key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (over.hidden || (!step && event.key !== "Escape")) return;
    event.preventDefault();
    event.stopPropagation();
    const items = [...sheet.children];
    if (step) items.at((items.indexOf(document.activeElement) + step) % items.length).focus();
    else { close(); opener.focus(); }
  }
  return node;
}

export function copyMenu({ segments, link }) {
  const plain = () => segments().map((segment) => segment.text).join("\n");
  const timed = () => segments().map((segment) => `[${clock(segment.start)}] ${segment.text}`).join("\n");
  return menu(t("copy"), "copy", () => [
    [t("copy.text"), "", () => copy(plain())],
    [t("copy.timed"), "", () => copy(timed())],
    [t("copy.link"), "", () => copy(link())],
  ]);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyOldWay(text);
  }
  toast(t("copied"), { seconds: 3 });
}

// The clipboard needs https or this machine; a selection can be copied anywhere.
function copyOldWay(text) {
  const area = el("textarea", { class: "hidden-text", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function downloadMenu(job, name) {
  return menu(t("download"), "save", async () => (await allFormats()).map((format) =>
    [has(`format.${format}`) ? t(`format.${format}`) : format.toUpperCase(), `.${format}`, () => download(job, format, name)]));
}

// The service may have formats that this page was not made with: its schema lists them.
async function allFormats() {
  try {
    formats ??= namesIn(await call("/openapi.json"));
  } catch {
    return KNOWN;
  }
  return [...KNOWN.filter((format) => formats.includes(format)), ...formats.filter((format) => !KNOWN.includes(format))];
}

function namesIn(schema) {
  const { parameters } = schema.paths["/api/v1/download/{job_id}"].get;
  const format = parameters.find((parameter) => parameter.name === "format");
  return format.description.split(", ");
}

// The key is a header, so the file is fetched and then saved.
async function download(job, format, name) {
  try {
    const response = await send(`/api/v1/download/${job.job_id}?format=${encodeURIComponent(format)}`);
    const address = URL.createObjectURL(await response.blob());
    el("a", { href: address, download: `${name.replace(/\.[^.]{1,5}$/, "").replace(/[/\\]/g, "_")}.${format}` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
    say(t("downloaded", { format: format.toUpperCase() }));
  } catch (error) {
    toast(error.message);
  }
}
