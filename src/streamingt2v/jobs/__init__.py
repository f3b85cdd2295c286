"""Videos as durable jobs: service, store, workers. No HTTP; `service.JobService` is the entry for API, page and scripts."""
