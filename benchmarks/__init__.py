"""What the README's figures come from: ratios, taken side by side in one run."""
