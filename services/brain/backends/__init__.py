"""Four backends behind one interface (`services.brain.backend`), one file each: nothing else knows their libraries."""
