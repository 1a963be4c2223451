SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  displayRequestDuration: true,
  // It would send the description to a service of theirs.
  validatorUrl: null,
});
