// The address of the page names the sample, the ratio and the model, so that a link restores them.

/** What the address asks for; null where it says nothing. */
export function asked() {
  const given = new URLSearchParams(location.hash.slice(1));
  const ratio = given.get("ratio");
  const number = ratio === null || ratio.trim() === "" ? NaN : Number(ratio);
  return {
    model: given.get("model"),
    sample: given.get("sample"),
    ratio: ratio === "auto" ? "auto" : number >= 0 && number < 1 ? number : null,
  };
}

//: Browsers refuse an address that changes with every step of the dial.
const SETTLED_MS = 300;
let settling = null;

/** Write what the page shows into the address; an own photo is left out, since it is on this machine alone. */
export function remember({ model, sample, ratio }) {
  const shown = new URLSearchParams();
  if (model) shown.set("model", model);
  if (sample) shown.set("sample", sample);
  shown.set("ratio", ratio === "auto" ? ratio : String(Number(ratio.toFixed(4))));
  clearTimeout(settling);
  settling = setTimeout(() => history.replaceState(null, "", `#${shown}`), SETTLED_MS);
}

// Another link in the same tab changes the address alone.
addEventListener("hashchange", () => {
  if (Object.values(asked()).some((value) => value !== null)) location.reload();
});
