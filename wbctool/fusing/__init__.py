"""Networks and measures of the cell fused into gradient-boosted trees."""
