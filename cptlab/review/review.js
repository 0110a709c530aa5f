// A vote: by click or key. It is sent again until the server has stored it, so a server that is started anew loses none.
(() => {
  "use strict";
  const form = document.querySelector(".choices"), keys = document.getElementById("keys");
  if (!form) return;
  const status = document.getElementById("status"), buttons = [...form.querySelectorAll("button")];
  let sending = false;

  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  async function send(button) {
    if (sending) return;
    sending = true;
    const body = new URLSearchParams(new FormData(form));
    body.set("answer", button.value);
    for (const one of buttons) one.setAttribute("aria-pressed", one === button);
    for (const one of buttons) one.disabled = true;
    for (;;) {
      try {
        const response = await fetch(form.action, { method: "POST", body });
        if (response.ok) {
          sending = false;
          location.assign(response.url);
          return;
        }
        if (response.status < 500) break;
      } catch { /* the server is not there */ }
      status.textContent = "The server does not answer. Your answer is not stored yet; it is sent again until it is. Keep this page open.";
      await pause(1000);
    }
    const refused = document.createElement("input"); // sent once more as a form, which shows the server's own sentence
    Object.assign(refused, { type: "hidden", name: "answer", value: button.value });
    form.append(refused);
    sending = false;
    form.submit();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(event.submitter);
  });
  addEventListener("beforeunload", (event) => { if (sending) event.preventDefault(); });

  const stored = (value) => {
    try { // a browser may keep nothing
      if (value !== undefined) localStorage.setItem("cptlab-review-keys", value);
      return localStorage.getItem("cptlab-review-keys");
    } catch { return null; }
  };
  keys.checked = stored() !== "off";
  keys.addEventListener("change", () => stored(keys.checked ? "on" : "off"));
  keys.closest(".keys").hidden = false;
  addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || !keys.checked) return; // one press, one vote
    const chosen = buttons.find((one) => one.getAttribute("aria-keyshortcuts") === event.key);
    const link = document.querySelector({ j: "a[rel=next]", k: "a[rel=prev]" }[event.key] ?? "a[rel=none]");
    (chosen ?? link)?.click();
  });
  document.documentElement.dataset.ready = "true";
})();
