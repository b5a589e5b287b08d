// Light, dark, or the system's theme. A classic script in the head, so that it runs before the first paint.
"use strict";
(() => {
  const KEY = "prunepool-theme";
  const NEXT = { system: "light", light: "dark", dark: "system" };
  const NAMES = { system: "as the system", light: "light", dark: "dark" };
  const root = document.documentElement;

  const stored = () => {
    try {
      return localStorage.getItem(KEY) in NEXT ? localStorage.getItem(KEY) : "system";
    } catch {
      return "system"; // storage may be forbidden; the choice then lasts as long as the page
    }
  };

  const apply = (theme) => {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
  };

  let theme = stored();
  apply(theme);

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const say = () => {
      button.setAttribute("aria-label", `Colours: ${NAMES[theme]}. Change to ${NAMES[NEXT[theme]]}`);
      button.querySelector("span").textContent = theme === "system" ? "Auto" : theme === "light" ? "Light" : "Dark";
    };
    button.addEventListener("click", () => {
      theme = NEXT[theme];
      apply(theme);
      say();
      try {
        localStorage.setItem(KEY, theme);
      } catch {
        // as above
      }
    });
    say();
  });
})();
