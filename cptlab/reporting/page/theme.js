// The button for dark mode. Without a choice the page follows the system.
(() => {
  "use strict";
  const button = document.getElementById("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  const stored = (value) => {
    try { // a page that is shown in a frame may have no storage
      if (value) localStorage.setItem("cptlab-theme", value);
      return localStorage.getItem("cptlab-theme");
    } catch { return null; }
  };
  let chosen = stored();
  const show = () => {
    const dark = chosen ? chosen === "dark" : system.matches;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    button.setAttribute("aria-pressed", dark);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    stored(chosen);
    show();
  });
  system.addEventListener("change", show);
  show();
})();
