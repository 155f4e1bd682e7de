"use strict";
/* A button with data-copy puts that text on the clipboard, or, where there is none, selects it. */
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const done = () => {
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
  };
  const select = () => {
    const target = button.classList.contains("copy") ? button.closest(".rule").querySelector(".line") : button.firstElementChild;
    window.getSelection().selectAllChildren(target);
  };
  if (navigator.clipboard) navigator.clipboard.writeText(button.dataset.copy).then(done, select);
  else select();
});

/* Shows all pictures that are blurred, or blurs them again. */
for (const button of document.querySelectorAll(".unveil"))
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "blur all" : "show all";
    for (const box of document.querySelectorAll(".veiled input")) box.checked = on;
  });
