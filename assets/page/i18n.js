// The language of the page: that of the browser until a person chooses. One table per language, loaded when it is used.
import { recall, remember } from "./memory.js";

export const LANGUAGES = { en: "English", vi: "Tiếng Việt" };
let current = fromMemory() ?? fromBrowser();
let table = await read(current);

function fromMemory() {
  const tag = recall("language");
  return tag in LANGUAGES ? tag : null;
}

function fromBrowser() {
  const preferred = (navigator.languages ?? [navigator.language]).map((tag) => tag.slice(0, 2).toLowerCase());
  return preferred.find((tag) => tag in LANGUAGES) ?? "en";
}

async function read(tag) {
  return (await import(`./${tag}.js`)).default;
}

export const language = () => current;

export async function setLanguage(tag) {
  table = await read(tag);
  current = tag;
  remember("language", tag);
  document.documentElement.lang = tag;
  dispatchEvent(new Event("language"));
}

// Return the text of a key. `{name}` is replaced by values.name; a value `count` selects key.one or key.other.
export function t(key, values = {}) {
  const plural = "count" in values ? `${key}.${new Intl.PluralRules(current).select(values.count)}` : key;
  const text = table[plural] ?? table[`${key}.other`] ?? table[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export const has = (key) => key in table;
