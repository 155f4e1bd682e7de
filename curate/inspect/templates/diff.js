/* A chip shows the cards of one reason, or all of them. */
for (const chips of document.querySelectorAll(".chips"))
  chips.addEventListener("click", (event) => {
    const chosen = event.target.closest("[data-only]");
    if (!chosen) return;
    for (const button of chips.children) button.setAttribute("aria-pressed", String(button === chosen));
    for (const card of chips.parentElement.querySelectorAll(".sample"))
      card.hidden = chosen.dataset.only !== "" && card.dataset.reason !== chosen.dataset.only;
  });
