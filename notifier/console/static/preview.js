// Each frame of a preview is filled by a form, so that what somebody typed stands in no address.
(() => {
  const fill = () => {
    for (const form of document.querySelectorAll("form[data-frame]")) {
      form.removeAttribute("data-frame");
      form.submit();
    }
  };
  document.addEventListener("htmx:after:swap", fill);
  fill();
})();
