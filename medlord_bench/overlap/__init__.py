"""Label maps against masks, region by region: DSC, NSD, HD95, and the rules for missing regions."""
