"""What samples prove: numbers in, estimates, intervals and decisions out."""
