"""One device, many people: what is loaded, who computes when, and codes that become pictures."""
