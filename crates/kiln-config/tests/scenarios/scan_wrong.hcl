stack "shop" {}

image "web" {
  from = "scratch"

  scan {
    database = "../osv"
    severity = "hgih"

    ignore "CVE-1" {}

    ignore "CVE-2" {
      reason  = " "
      expires = "2027-02-30"
    }
  }
}

image "api" {
  from = "scratch"

  scan {}
}
#: expect
# error[wrong-type]: `database` of image "web": "../osv" leads out of the stack folder; a database elsewhere has an absolute path
#  --> stack.hcl:7:16
#   |
# 7 |     database = "../osv"
#   |                ^^^^^^^^
#
# error[wrong-type]: `severity` of image "web": there is no severity "hgih"; there are "negligible", "low", "medium", "high", "critical"
#  --> stack.hcl:8:16
#   |
# 8 |     severity = "hgih"
#   |                ^^^^^^
#
# error[missing-attribute]: `ignore` needs the attribute `reason`
#   --> stack.hcl:10:5
#    |
# 10 |     ignore "CVE-1" {}
#    |     ^^^^^^^^^^^^^^
#    = help: reason = … (string): Why it is accepted.
#
# error[missing-attribute]: `ignore` needs the attribute `expires`
#   --> stack.hcl:10:5
#    |
# 10 |     ignore "CVE-1" {}
#    |     ^^^^^^^^^^^^^^
#    = help: expires = … (day): The first day, in UTC, on which it counts again: `"2027-01-31"`.
#
# error[wrong-type]: `reason` of image "web": a reason says something
#   --> stack.hcl:13:17
#    |
# 13 |       reason  = " "
#    |                 ^^^
#
# error[wrong-type]: `expires` of image "web": "2027-02-30" is no day like 2027-01-31
#   --> stack.hcl:14:17
#    |
# 14 |       expires = "2027-02-30"
#    |                 ^^^^^^^^^^^^
#
# error[missing-attribute]: `scan` needs the attribute `database`
#   --> stack.hcl:22:3
#    |
# 22 |   scan {}
#    |   ^^^^
#    = help: database = … (path): A folder of JSON files, a JSON file, or a zip archive: below the stack folder, or an absolute path on the machine.
