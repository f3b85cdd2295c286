"""Videos as jobs, and the HTTP API on them. `service.JobService` is the one door that the API, the demo and scripts go through."""
