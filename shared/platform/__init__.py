"""What both services stand on, and no program outside needs: HTTP, stores, settings, telemetry."""
