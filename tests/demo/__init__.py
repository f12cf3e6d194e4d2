"""The demo page in a real browser, used as a person would: by what is seen, read out, clicked and typed."""
