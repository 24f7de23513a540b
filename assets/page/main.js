// The frame: top bar, routes, and what every view shares.
import { mount as mountMessages, say } from "./announce.js";
import { call, hasKey, isConnected } from "./api.js";
import { button, el, svg, write } from "./dom.js";
import { LANGUAGES, language, setLanguage, t } from "./i18n.js";
import { keyDialog } from "./key.js";
import { recall, remember } from "./memory.js";
import * as home from "./home.js";

const main = el("main", { id: "main", tabindex: "-1" });
const offline = el("p", { class: "connection", role: "status", hidden: true });
const THEMES = { auto: "auto", light: "sun", dark: "moon" };
let view = null;
let shown = null;
let admin = false;

// Views other than the first are loaded when they are opened.
const ROUTES = [
  [/^#\/jobs\/([\w-]+)/, () => import("./reader.js"), "home"],
  [/^#\/operate/, () => import("./operate.js"), "operate"],
  [/^/, async () => home, "home"],
];

async function show({ focus = true } = {}) {
  const [match, load, section] = find(location.hash);
  const path = location.hash.split("?")[0];
  const query = new URLSearchParams(location.hash.split("?")[1] ?? "");
  if (view && shown === path) {
    view.moved?.(query);
    return;
  }
  shown = path;
  view?.stop();
  view = null;
  const module = await load();
  if (shown !== path) return;
  main.replaceChildren();
  view = module.open(main, { id: match[1], query });
  document.body.classList.toggle("reading", section === "home" && Boolean(match[1]));
  markSection();
  scrollTo(0, 0);
  if (focus) main.querySelector("h1")?.focus();
}

function markSection() {
  const [, , section] = find(location.hash);
  for (const link of document.querySelectorAll(".top nav a")) {
    if (link.dataset.section === section) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function find(hash) {
  for (const [pattern, load, section] of ROUTES) {
    const match = pattern.exec(hash);
    if (match) return [match, load, section];
  }
  return null;
}

function topBar() {
  const mark = svg("svg", { viewBox: "0 0 32 32", "aria-hidden": "true" },
    svg("rect", { width: 32, height: 32, rx: 8 }), svg("path", { d: "M6 14v4M11 9v14M16 12v8M21 7v18M26 14v4" }));
  const link = (section, href) => el("a", { href, data: { section }, hidden: section === "operate" && !admin }, t(`nav.${section}`));
  return el("header", { class: "top" },
    el("div", {},
      el("a", { class: "brand", href: "#/" }, mark, el("span", {}, "async-stt")),
      el("nav", { "aria-label": t("nav") }, link("home", "#/"), link("operate", "#/operate")),
      el("div", { class: "tools" }, languageButton(), themeButton(),
        button(t("key.title"), () => keyDialog(false), { symbol: "key", square: true, kind: hasKey() ? "" : "plain" }))));
}

function languageButton() {
  const other = language() === "en" ? "vi" : "en";
  return button(other.toUpperCase(), () => setLanguage(other), { kind: "plain", lang: other, "aria-label": LANGUAGES[other], title: LANGUAGES[other] });
}

function themeButton() {
  const theme = recall("theme") ?? "auto";
  const next = { auto: "light", light: "dark", dark: "auto" }[theme];
  return button(t("theme", { now: t(`theme.${theme}`) }), () => {
    remember("theme", next);
    applyTheme();
    document.querySelector(".tools").children[1].replaceWith(themeButton());
    document.querySelector(".tools").children[1].focus();
  }, { symbol: THEMES[theme], square: true, kind: "plain" });
}

function applyTheme() {
  const theme = recall("theme") ?? "auto";
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  dispatchEvent(new Event("theme"));
}

function showConnection() {
  const lost = !isConnected();
  if (lost === !offline.hidden) return;
  offline.hidden = !lost;
  write(offline, t("offline"));
  say(t(lost ? "offline" : "online"));
}

function frame() {
  document.documentElement.lang = language();
  const skip = el("a", { class: "skip", href: "#main", on: { click: (event) => { event.preventDefault(); main.focus(); } } }, t("skip"));
  document.querySelectorAll(".skip, .top").forEach((node) => node.remove());
  document.body.prepend(skip, topBar());
}

// Operators have a further view.
async function findRole() {
  try {
    admin = (await call("/api/v1/me")).admin;
  } catch {
    admin = false;
  }
  document.querySelector("[data-section=operate]").hidden = !admin;
}

applyTheme();
frame();
document.body.append(offline, main);
mountMessages();
addEventListener("hashchange", () => show());
addEventListener("connection", showConnection);
addEventListener("offline", showConnection);
addEventListener("online", showConnection);
for (const event of ["language", "key"]) {
  addEventListener(event, () => {
    frame();
    shown = null;
    show({ focus: false });
    if (event === "key") findRole();
    if (event === "language") document.querySelector(".tools button").focus();
  });
}
show({ focus: false });
findRole();
