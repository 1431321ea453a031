"""What goes out with a model: cards, attribution, lineage, and forms for hubs and other trainers."""
