SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  displayRequestDuration: true,
  // Disables Swagger's online validator, which would receive the document's address.
  validatorUrl: null,
});
