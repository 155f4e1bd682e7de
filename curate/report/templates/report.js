document.addEventListener("click", (event) => {
  const button = event.target.closest("button.uid");
  if (!button) return;
  const done = () => {
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
  };
  const select = () => {
    const range = document.createRange();
    range.selectNodeContents(button.firstElementChild);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  };
  if (navigator.clipboard) navigator.clipboard.writeText(button.dataset.uid).then(done, select);
  else select();
});
for (const cut of document.querySelectorAll(".strip > .cut")) {
  const strip = cut.parentElement;
  strip.scrollLeft = cut.offsetLeft - strip.offsetLeft - strip.clientWidth / 2 + cut.offsetWidth / 2;
}
