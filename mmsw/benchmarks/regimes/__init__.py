"""Do zeros survive? Small networks with zeros in them, trained in every way that mmengine offers."""
