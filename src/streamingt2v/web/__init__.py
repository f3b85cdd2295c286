"""The web demo: a page on the job service, with its HTTP API beside it on the same port."""
