-- Asks the decision service which LLM answers a chat, and leaves its name in txn.llm.
-- Whatever goes wrong, txn.llm stays unset and the configuration's default takes the request.
local url = os.getenv("UNIROUTE_URL") or "http://127.0.0.1:8080"

core.register_action("uniroute", { "http-req" }, function(txn)
  local body = txn.sf:req_body()
  if not body or body == "" then
    return
  end
  local answer = core.httpclient():post({
    url = url .. "/v1/route",
    headers = { ["content-type"] = { "application/json" } },
    body = body,
    timeout = 100, -- milliseconds
  })
  if answer and answer.status == 200 then
    txn:set_var("txn.llm", answer.body:match('"model":"([%w._:/-]+)"'))
    txn:set_var("txn.version", answer.body:match('"version":(%d+)'))
  end
end, 0)
