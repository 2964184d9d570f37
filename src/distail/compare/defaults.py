"""What a comparison is made of if nothing else is asked for. Light, since the command line shows it in its help."""

METHODS = "ce,kd,bkd,drkd,ipwd,krdistill"
SEEDS = "0,1,2"
