# top comment
stack    "shop"   {}
variable "x" {
type=number
  default   =    2 # two
    longer_name = [1,2,
  3] // three
  d = {a=1,b = 2}
  obj = {
  a = 1
  bbb = "x${ var.y }z" # c
  # own
  "quoted key" = -1
  }

  f = foo( 1 ,2 )[0] . bar
  g = !true&&false||1>-2
  h = [for x in [1,2]:x if(x>1)]
  i = {for k,v in a:k=>v...}
  heredoc = <<-EOT
      keep   this
    = as is
  EOT
  after = 1
  c = true?1:2
  neg = 1 - -1
  paren = (1+2)*3
  idx = a[ "x" ].*.b[*].c
  nest = foo(bar([
    1,
    2
  ]),
  3)
  very = [{
    a = 1
  }, {
    b = 2
  }]
}
block { one = 1 }
block {}
block {   }
route   "a"    {
  /* block */ x = 1 /* after */
  y = 2


  z = 3 #z
  zz = 4 # zz
}
