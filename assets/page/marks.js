// Marks in the text by the browser's highlights: no element is added, so rows stay light and selections whole.
import { wordsOf } from "./transcript.js";

// Probability below which a word counts as unsure; segments without words have their confidence.
export const UNSURE = 0.6;
const registry = globalThis.CSS?.highlights;

export function clearMarks() {
  registry?.clear();
}

// Mark places of rendered rows. places: [{index, from, to}].
export function mark(name, transcript, places) {
  if (!registry) return;
  const ranges = places.map((place) => rangeOf(transcript, place)).filter(Boolean);
  if (ranges.length) registry.set(name, new Highlight(...ranges));
  else registry.delete(name);
}

function rangeOf(transcript, { index, from, to }) {
  const text = transcript.row(index)?.querySelector(".said")?.firstChild;
  if (!text || to > text.length) return null;
  const range = new Range();
  range.setStart(text, from);
  range.setEnd(text, to);
  return range;
}

// Every place of the text that the model was unsure of. A corrected segment has been decided by a person.
export function unsurePlaces(segments) {
  return segments.flatMap((segment, index) => {
    if (segment.correction) return [];
    if (!segment.words?.length) return segment.confidence < UNSURE ? [{ index, from: 0, to: segment.text.length }] : [];
    return wordsOf(segment).filter((word) => word.probability < UNSURE).map(({ from, to }) => ({ index, from, to }));
  });
}

// Letters without case and, unless the query has marks of its own, without diacritics. Every letter keeps its place.
const bare = (letter) => (letter === "đ" || letter === "Đ" ? "d" : letter.normalize("NFD")[0].toLowerCase());
const lower = (letter) => letter.toLowerCase()[0];
const fold = (text, how) => Array.from({ length: text.length }, (_, at) => how(text[at])).join("");

export function find(segments, query) {
  const wanted = query.normalize("NFC").trim();
  if (!wanted) return [];
  const how = fold(wanted, bare) === fold(wanted, lower) ? bare : lower;
  const needle = fold(wanted, how);
  const places = [];
  segments.forEach((segment, index) => {
    const text = fold(segment.text, how);
    for (let from = text.indexOf(needle); from >= 0; from = text.indexOf(needle, from + needle.length)) {
      places.push({ index, from, to: from + needle.length });
    }
  });
  return places;
}
