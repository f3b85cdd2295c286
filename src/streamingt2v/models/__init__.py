"""Networks and nothing else: the base networks, CAM, APM and their parts."""
