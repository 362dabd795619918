// A form that was sent is not sent twice by a second click.
addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});
addEventListener("pageshow", () => document.querySelectorAll("form").forEach((form) => delete form.dataset.sent));

// The answer to a form that shows another page: to load it again is to load that one.
const shown = document.querySelector("[data-address]");
if (shown) history.replaceState(null, "", shown.dataset.address);
