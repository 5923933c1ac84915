"""Models and datasets on the Hugging Face Hub: fetched, published, described; see docs/hub.md."""
