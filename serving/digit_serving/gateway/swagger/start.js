// Documentation page: Swagger UI in the browser's colour scheme, with the names and stops of the keyboard that it lacks.
const api = document.querySelector("#api");
const darkScheme = matchMedia("(prefers-color-scheme: dark)");

function followScheme() {
  document.documentElement.classList.toggle("dark-mode", darkScheme.matches);
}

function complete() {
  for (const field of api.querySelectorAll(":is(select, textarea):not([aria-label])")) {
    field.ariaLabel = field.closest("tr")?.dataset.paramName ?? (field.matches("select") ? "Example" : "Request body");
  }
  for (const text of api.querySelectorAll("pre.microlight:not([tabindex])")) text.tabIndex = 0;
  for (const heading of api.querySelectorAll(".opblock-tag, .models > h4, .opblock-title")) heading.ariaLevel = heading.matches(".opblock-title") ? 3 : 2;
  for (const header of api.querySelectorAll(".information-container")) header.role = "banner";
}

darkScheme.addEventListener("change", followScheme);
followScheme();
new MutationObserver(complete).observe(api, { childList: true, subtree: true });

SwaggerUIBundle({
  url: "openapi.json",
  domNode: api,
  displayRequestDuration: true,
  // Its links inside of buttons are out of the keyboard's reach, its colours too pale.
  deepLinking: false,
  syntaxHighlight: false,
  // Disables Swagger's online validator, which would receive the document's address.
  validatorUrl: null,
});
