"""Objects over the engine: manifests, the catalog, metadata, the planner, pulls and the agent. It knows no terminal."""
