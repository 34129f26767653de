SwaggerUIBundle({
  url: "../api-doc/openapi.json",
  dom_id: "#swagger-ui",
  validatorUrl: null, // the default asks a server on the internet
});
