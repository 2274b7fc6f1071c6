"""A consortium of real hospitals: what the coordinator and the sites do, whatever carries their bytes."""
