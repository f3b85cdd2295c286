"""Networks: the base networks, CAM, APM and their parts."""
